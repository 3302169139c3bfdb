-- Judges the counts of requests by the server's clock, one request after the other, and charges all
-- counts of a request when none of them refuses.
--
-- KEYS    one for each count.
-- ARGV    one string. For each request: 1 to charge (byte), and how many counts are its own (u16);
--         for each of them its algorithm (0 strict, 1 GCRA) and whether a refusal counts (bytes),
--         limit (u32), window in microseconds (f64), cost (u32).
-- Answer  one string. For each count: 1 where it admits (byte), units left, microseconds until there
--         are more (refused: until the cost fits), and the stamp that a refund names (f64 each).
--
-- A strict count is the sum of its units and a list of (stamp, units), oldest first. A charge joins
-- the last entry, which takes over its stamp, once there are 16 and both lie in the same fifteenth of
-- the window: nothing is forgotten early, and the list stays short whatever the limit.
-- A GCRA count is (theoretical arrival, period).

-- It stands in the way of every request, so it makes few tables and calls, and reads of a list no more
-- than its ends.

local pack, read, floor, ceil, max = struct.pack, struct.unpack, math.floor, math.ceil, math.max

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

-- Microseconds until so many units have left a strict count, whose list begins at a byte.
local function freed_in(list, from, units, span)
  for at = from, #list, 12 do
    local stamp, held = read('>dI4', list, at)
    units = units - held
    if units <= 0 then
      return stamp + span - clock
    end
  end
  return span
end

local terms = ARGV[1]
local held = redis.call('MGET', unpack(KEYS))
-- By key, what requests before have made of it.
local changed = {}

local function put(key, milliseconds, packed)
  redis.call('PSETEX', key, milliseconds, packed)
  changed[key] = packed
end

-- Whether a count admits, whether that matters, its terms, and what it holds.
local function judge(index, at)
  local is_gcra, may_refuse, limit, span, cost = read('>BBI4dI4', terms, at)
  local state = changed[KEYS[index]] or held[index] or ''
  if is_gcra == 1 then
    local period = max(1, ceil(span / limit))
    local arrival = clock
    if #state == 16 then
      local was, of = read('>dd', state)
      if was > clock then
        -- A debt is kept in units when the limit has changed.
        arrival = of == period and was or clock + (was - clock) / of * period
      end
    end
    local charged = arrival + period * cost
    return charged <= clock + period * limit, may_refuse, is_gcra, limit, span, cost, period, arrival, charged
  end
  local from, sum, now, oldest = 5, 0, clock, nil
  if #state > 4 then
    sum, oldest = read('>I4d', state)
    now = max(now, (read('>d', state, #state - 11)))
    while oldest and oldest + span <= now do
      sum = sum - read('>I4', state, from + 8)
      from = from + 12
      oldest = from < #state and read('>d', state, from) or nil
    end
  end
  return sum + cost <= limit, may_refuse, is_gcra, limit, span, cost, state, from, sum, now, oldest
end

-- Charges a GCRA count or not, and answers.
local function settle_gcra(key, charge, admits, limit, period, arrival, charged)
  local full, stamp = period * limit, 0
  if charge and admits then
    arrival, stamp = charged, clock
    put(key, ceil((arrival - clock) / 1000), pack('>dd', arrival, period))
  end
  local owed = arrival - clock
  if not admits then
    return pack('>Bddd', 0, max(0, floor((full - owed) / period)), ceil(charged - clock - full), stamp)
  elseif owed > 0 then
    local units = max(0, floor((full - owed) / period))
    return pack('>Bddd', 1, units, ceil(owed - (full - (units + 1) * period)), stamp)
  end
  return pack('>Bddd', 1, limit, 0, stamp)
end

-- The same for a strict count.
local function settle_strict(key, charge, admits, limit, span, cost, list, from, sum, now, oldest)
  if not admits then
    return pack('>Bddd', 0, max(0, limit - sum), ceil(freed_in(list, from, sum + cost - limit, span)), 0)
  end
  local stamp = 0
  if charge then
    local kept, joined, cell = #list, cost, ceil(span / 15)
    -- 16 of them, from 12 bytes each.
    if kept - from >= 191 then
      local last, units = read('>dI4', list, kept - 11)
      if floor(last / cell) == floor(now / cell) then
        kept, joined = kept - 12, cost + units
      end
    end
    sum, stamp, oldest = sum + cost, now, oldest or now
    local packed = pack('>I4', sum) .. string.sub(list, from, kept) .. pack('>dI4', now, joined)
    put(key, ceil((now + span - clock) / 1000), packed)
  end
  return pack('>Bddd', 1, limit - sum, sum > 0 and ceil(oldest + span - clock) or 0, stamp)
end

local function settle(index, charge, admits, _, is_gcra, limit, span, cost, ...)
  if is_gcra == 1 then
    return settle_gcra(KEYS[index], charge, admits, limit, ...)
  end
  return settle_strict(KEYS[index], charge, admits, limit, span, cost, ...)
end

local answers = {}

-- Counts that stand or fall together.
local function settle_together(from, to, at, charge)
  local judged = {}
  for index = from, to do
    local count = { judge(index, at + (index - from) * 18) }
    judged[index] = count
    charge = charge and (count[1] or count[2] == 0)
  end
  for index = from, to do
    answers[index] = settle(index, charge, unpack(judged[index], 1, 11))
  end
end

local from, at = 1, 1
while from <= #KEYS do
  local charge, own = read('>BI2', terms, at)
  at = at + 3
  if own == 1 then
    answers[from] = settle(from, charge == 1, judge(from, at))
  else
    settle_together(from, from + own - 1, at, charge == 1)
  end
  from, at = from + own, at + own * 18
end
return table.concat(answers)
