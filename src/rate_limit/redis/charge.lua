-- Judges the counts of one request by the server's clock, and charges all of them when none refuses.
--
-- KEYS    one for each count.
-- ARGV    '1' to charge, then for each key: 's' (strict) or 'g' (GCRA), limit, window in
--         microseconds, cost, and '1' where a refusal counts.
-- Answer  four numbers for each key: 1 where it admits, units left, microseconds until there are
--         more (refused: until the cost fits), and the stamp that a refund names.
--
-- A strict count is a list of (stamp, units), oldest first. A charge joins the last entry, which
-- takes over its stamp, once there are 16 and both lie in the same fifteenth of the window: nothing
-- is forgotten early, and the list stays short whatever the limit.
-- A GCRA count is (theoretical arrival, period).

local clock = redis.call('TIME')
clock = clock[1] * 1000000 + clock[2]
local charge = ARGV[1] == '1'

local function read(key)
  local held = redis.pcall('GET', key)
  return type(held) == 'string' and held or ''
end

local function freed_in(count, units)
  for _, entry in ipairs(count.entries) do
    units = units - entry[2]
    if units <= 0 then
      return entry[1] + count.span - clock
    end
  end
  return count.span
end

local strict = {}

function strict.judge(count, held)
  local now, sum, entries = clock, 0, {}
  local all = math.floor(#held / 12)
  if all > 0 then
    now = math.max(now, (struct.unpack('>d', held, all * 12 - 11)))
  end
  for index = 0, all - 1 do
    local stamp, units = struct.unpack('>dI4', held, index * 12 + 1)
    if stamp + count.span > now then
      sum = sum + units
      entries[#entries + 1] = { stamp, units }
    end
  end
  count.now, count.sum, count.entries = now, sum, entries
  return sum + count.cost <= count.limit
end

function strict.wait(count)
  return freed_in(count, count.sum + count.cost - count.limit)
end

function strict.charge(count)
  local entries, now = count.entries, count.now
  local last = entries[#entries]
  local cell = math.ceil(count.span / 15)
  if #entries >= 16 and math.floor(last[1] / cell) == math.floor(now / cell) then
    last[1], last[2] = now, last[2] + count.cost
  else
    entries[#entries + 1] = { now, count.cost }
  end
  count.sum = count.sum + count.cost
  local packed = {}
  for index, entry in ipairs(entries) do
    packed[index] = struct.pack('>dI4', entry[1], entry[2])
  end
  redis.call('SET', count.key, table.concat(packed), 'PX', math.ceil((now + count.span - clock) / 1000))
  return now
end

function strict.left(count)
  if count.sum == 0 then
    return count.limit, 0
  end
  local units = math.max(0, count.limit - count.sum)
  return units, freed_in(count, count.sum - count.limit + units + 1)
end

local gcra = {}

function gcra.judge(count, held)
  count.period = math.max(1, math.ceil(count.span / count.limit))
  count.full = count.period * count.limit
  count.arrival = clock
  if #held == 16 then
    local arrival, period = struct.unpack('>dd', held)
    -- A debt is kept in units when the limit has changed.
    count.arrival = clock + math.max(0, arrival - clock) / period * count.period
  end
  return count.arrival + count.period * count.cost <= clock + count.full
end

function gcra.wait(count)
  return count.arrival + count.period * count.cost - clock - count.full
end

function gcra.charge(count)
  count.arrival = count.arrival + count.period * count.cost
  local held = struct.pack('>dd', count.arrival, count.period)
  redis.call('SET', count.key, held, 'PX', math.ceil((count.arrival - clock) / 1000))
  return clock
end

function gcra.left(count)
  local owed = count.arrival - clock
  if owed == 0 then
    return count.limit, 0
  end
  local units = math.max(0, math.floor((count.full - owed) / count.period))
  return units, owed - (count.full - (units + 1) * count.period)
end

local counts, refused = {}, false
for index, key in ipairs(KEYS) do
  local at = index * 5 - 3
  local count = {
    key = key,
    by = ARGV[at] == 's' and strict or gcra,
    limit = tonumber(ARGV[at + 1]),
    span = tonumber(ARGV[at + 2]),
    cost = tonumber(ARGV[at + 3]),
  }
  count.admits = count.by.judge(count, read(key))
  refused = refused or (not count.admits and ARGV[at + 4] == '1')
  counts[index] = count
end

local answer = {}
for _, count in ipairs(counts) do
  local stamp = 0
  if charge and not refused and count.admits then
    stamp = count.by.charge(count)
  end
  local units, more_in = count.by.left(count)
  if not count.admits then
    more_in = count.by.wait(count)
  end
  answer[#answer + 1] = count.admits and 1 or 0
  answer[#answer + 1] = units
  answer[#answer + 1] = math.ceil(more_in)
  answer[#answer + 1] = stamp
end
return answer
