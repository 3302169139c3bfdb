-- Judges the counts of one request by the server's clock, and charges all of them when none refuses.
--
-- KEYS    one for each count.
-- ARGV    one string: a byte that is 1 to charge, then for each key its algorithm (0 strict, 1 GCRA)
--         and whether a refusal counts (bytes), limit (u32), window in microseconds (f64), cost (u32).
-- Answer  four numbers for each key: 1 where it admits, units left, microseconds until there are
--         more (refused: until the cost fits), and the stamp that a refund names.
--
-- A strict count is a list of (stamp, units), oldest first. A charge joins the last entry, which
-- takes over its stamp, once there are 16 and both lie in the same fifteenth of the window: nothing
-- is forgotten early, and the list stays short whatever the limit.
-- A GCRA count is (theoretical arrival, period).

-- It stands in the way of every request, so it makes few tables and calls.

local pack, unpack, floor, ceil, max = struct.pack, struct.unpack, math.floor, math.ceil, math.max

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

-- Microseconds until so many units have left a strict count.
local function freed_in(entries, first, all, units, span)
  for index = first * 2, all * 2, 2 do
    units = units - entries[index]
    if units <= 0 then
      return entries[index - 1] + span - clock
    end
  end
  return span
end

local terms = ARGV[1]
local counts, refused = {}, false
for index = 1, #KEYS do
  local is_gcra, may_refuse, limit, span, cost = unpack('>BBI4dI4', terms, index * 18 - 16)
  local held = redis.pcall('GET', KEYS[index])
  if type(held) ~= 'string' then
    held = ''
  end
  local admits
  if is_gcra == 1 then
    local period = max(1, ceil(span / limit))
    local arrival = clock
    if #held == 16 then
      local was, of = unpack('>dd', held)
      if was > clock then
        -- A debt is kept in units when the limit has changed.
        arrival = of == period and was or clock + (was - clock) / of * period
      end
    end
    local charged = arrival + period * cost
    admits = charged <= clock + period * limit
    counts[index] = { admits, period, arrival, charged }
  else
    local all, first, sum, now = floor(#held / 12), 1, 0, clock
    local entries = {}
    if all > 0 then
      entries = { unpack('>' .. string.rep('dI4', all), held) }
      now = max(now, entries[all * 2 - 1])
      while first <= all and entries[first * 2 - 1] + span <= now do
        first = first + 1
      end
      for entry = first * 2, all * 2, 2 do
        sum = sum + entries[entry]
      end
    end
    admits = sum + cost <= limit
    counts[index] = { admits, entries, first, all, sum, now, held }
  end
  refused = refused or (not admits and may_refuse == 1)
end

local charge = string.byte(terms) == 1 and not refused
local answer = {}
for index = 1, #KEYS do
  local is_gcra, _, limit, span, cost = unpack('>BBI4dI4', terms, index * 18 - 16)
  local count = counts[index]
  local admits = count[1]
  local units, more_in, stamp = limit, 0, 0
  if is_gcra == 1 then
    local period, arrival, charged = count[2], count[3], count[4]
    local full = period * limit
    if charge and admits then
      arrival, stamp = charged, clock
      redis.call('PSETEX', KEYS[index], ceil((arrival - clock) / 1000), pack('>dd', arrival, period))
    end
    local owed = arrival - clock
    if not admits then
      units, more_in = max(0, floor((full - owed) / period)), charged - clock - full
    elseif owed > 0 then
      units = max(0, floor((full - owed) / period))
      more_in = owed - (full - (units + 1) * period)
    end
  else
    local entries, first, all, sum, now = count[2], count[3], count[4], count[5], count[6]
    if charge and admits then
      local kept, last, cell = all, all * 2 - 1, ceil(span / 15)
      if all - first >= 15 and floor(entries[last] / cell) == floor(now / cell) then
        kept = all - 1
        entries[last], entries[last + 1] = now, entries[last + 1] + cost
      else
        all = all + 1
        entries[all * 2 - 1], entries[all * 2] = now, cost
      end
      sum, stamp = sum + cost, now
      local packed = string.sub(count[7], first * 12 - 11, kept * 12) .. pack('>dI4', now, entries[all * 2])
      redis.call('PSETEX', KEYS[index], ceil((now + span - clock) / 1000), packed)
    end
    if not admits then
      units, more_in = max(0, limit - sum), freed_in(entries, first, all, sum + cost - limit, span)
    elseif sum > 0 then
      units = max(0, limit - sum)
      more_in = freed_in(entries, first, all, sum - limit + units + 1, span)
    end
  end
  local to = index * 4
  answer[to - 3], answer[to - 2], answer[to - 1], answer[to] = admits and 1 or 0, units, ceil(more_in), stamp
end
return answer
