-- Gives charges back, as far as they still count: what has left the window is not taken from what
-- was charged later.
--
-- KEYS  one for each charge.
-- ARGV  for each key: 's' or 'g', limit, window in microseconds, cost, and the stamp of the charge.

local clock = redis.call('TIME')
clock = clock[1] * 1000000 + clock[2]

local function strict(key, held, span, cost, stamp)
  if stamp + span <= clock then
    return
  end
  local cell = math.ceil(span / 15)
  local kept, sum, last, given = {}, 0, clock, false
  for from = 5, #held, 12 do
    local at, units = struct.unpack('>dI4', held, from)
    if not given and at >= stamp and math.floor(at / cell) == math.floor(stamp / cell) then
      units, given = units - cost, true
    end
    if units > 0 then
      kept[#kept + 1] = struct.pack('>dI4', at, units)
      sum, last = sum + units, at
    end
  end
  if #kept == 0 then
    redis.call('DEL', key)
  else
    local packed = struct.pack('>I4', sum) .. table.concat(kept)
    redis.call('SET', key, packed, 'PX', math.max(1, math.ceil((last + span - clock) / 1000)))
  end
end

local function gcra(key, held, cost, stamp)
  if #held ~= 16 then
    return
  end
  local arrival, period = struct.unpack('>dd', held)
  local owed = math.max(0, period * cost - math.max(0, clock - stamp))
  arrival = arrival - math.min(owed, math.max(0, arrival - clock))
  if arrival <= clock then
    redis.call('DEL', key)
  else
    redis.call('SET', key, struct.pack('>dd', arrival, period), 'PX', math.ceil((arrival - clock) / 1000))
  end
end

for index, key in ipairs(KEYS) do
  local at = index * 5 - 4
  local held = redis.pcall('GET', key)
  if type(held) == 'string' then
    local span, cost, stamp = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    if ARGV[at] == 's' then
      strict(key, held, span, cost, stamp)
    else
      gcra(key, held, cost, stamp)
    end
  end
end
return 0
