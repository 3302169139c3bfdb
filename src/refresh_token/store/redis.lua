-- One step on one partition of the sessions. It runs alone: nothing comes between its commands.
-- All keys are declared and share a slot. Times, generations and epochs are decimal texts.
local MARK, ROWS, SUBJECTS, EPOCHS, ENDED, DUE = unpack(KEYS)
local step = ARGV[1]
local call = redis.call

-- The columns of a row; an empty text is none.
local SUBJECT, LAST_USED, EXPIRES, ABSOLUTE_END, ENDED_AT, REASON = 1, 3, 4, 5, 6, 7
local IP, GENERATION, CURRENT, PREVIOUS, SEED, KEY = 10, 11, 12, 13, 14, 15

if step == 'mark' then
    call('SET', MARK, ARGV[2])
end
if call('GET', MARK) ~= ARGV[2] then
    return redis.error_reply('LOST what this partition held')
end
if step == 'mark' or step == 'check' then
    return 'held'
end

local function read(id)
    local row = call('HGET', ROWS, id)
    return row and cmsgpack.unpack(row)
end

local function write(id, row)
    call('HSET', ROWS, id, cmsgpack.pack(row))
end

-- A subject's sessions stand together in one sorted set: `subject 0 id`, and once they were ended
-- `subject 1 id`. Names may hold such bytes, so that others can stand between.
local LIVE, OVER, LAST = '\0', '\1', ('\255'):rep(16)

local function ids_of(subject)
    local from = subject .. LIVE
    local members = call('ZRANGEBYLEX', SUBJECTS, '[' .. from, '[' .. from .. LAST)
    local ids = {}
    for _, member in ipairs(members) do
        if #member == #from + 16 then
            ids[#ids + 1] = member:sub(-16)
        end
    end
    return ids
end

local function has_any(subject)
    local from, to = '[' .. subject .. LIVE, '[' .. subject .. OVER .. LAST
    return #call('ZRANGEBYLEX', SUBJECTS, from, to, 'LIMIT', 0, 1) > 0
end

local function is_live(row, now)
    return row[ENDED_AT] == '' and tonumber(now) < tonumber(row[EXPIRES])
end

local function finish(id, row, now, reason)
    row[ENDED_AT], row[REASON] = now, reason
    write(id, row)
    call('ZREM', SUBJECTS, row[SUBJECT] .. LIVE .. id)
    call('ZADD', SUBJECTS, 0, row[SUBJECT] .. OVER .. id)
    call('ZADD', ENDED, now, id)
    if tonumber(now) < tonumber(row[EXPIRES]) then
        call('ZADD', DUE, now, 's' .. id)
    end
end

if step == 'epoch' then
    return call('HGET', EPOCHS, ARGV[3]) or '0'
end

if step == 'get' then
    return read(ARGV[3]) or {}
end

if step == 'create' then
    local id, epoch = ARGV[3], ARGV[4]
    local row = { unpack(ARGV, 5) }
    if (call('HGET', EPOCHS, row[SUBJECT]) or '0') ~= epoch then
        return 'moved'
    end
    if call('HEXISTS', ROWS, id) == 1 then
        return 'taken'
    end
    write(id, row)
    call('ZADD', SUBJECTS, 0, row[SUBJECT] .. LIVE .. id)
    call('ZADD', DUE, row[EXPIRES], 's' .. id)
    return 'created'
end

if step == 'rotate' then
    local id, now, generation, presented = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
    local row = read(id)
    if not row then
        return {}
    end
    local is_current = row[GENERATION] == generation and row[CURRENT] == presented
    local idle_end, ip, not_made_after = ARGV[11], ARGV[12], ARGV[13]
    local is_old_enough = tonumber(row[LAST_USED]) <= tonumber(not_made_after)
    if not (is_current and is_old_enough and is_live(row, now)) then
        return { 'refused', unpack(row) }
    end
    row[PREVIOUS] = presented
    row[GENERATION], row[CURRENT], row[SEED], row[KEY] = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
    row[LAST_USED] = now
    local is_earlier = tonumber(idle_end) < tonumber(row[ABSOLUTE_END])
    local expires = is_earlier and idle_end or row[ABSOLUTE_END]
    -- One that ends later is found in its old place and put off.
    if tonumber(expires) < tonumber(row[EXPIRES]) then
        call('ZADD', DUE, expires, 's' .. id)
    end
    row[EXPIRES] = expires
    if ip ~= '' then
        row[IP] = ip
    end
    write(id, row)
    return { 'rotated', unpack(row) }
end

if step == 'revoke' then
    local id, now, reason = ARGV[3], ARGV[4], ARGV[5]
    local row = read(id)
    if not row then
        return {}
    end
    if row[ENDED_AT] ~= '' then
        return { 'already', unpack(row) }
    end
    finish(id, row, now, reason)
    return { 'ended', unpack(row) }
end

if step == 'revoke_subject' then
    local subject, except, now, reason, least = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
    local epoch = tonumber(call('HGET', EPOCHS, subject) or '0') + 1
    epoch = string.format('%.0f', math.max(epoch, tonumber(least)))
    call('HSET', EPOCHS, subject, epoch)
    call('ZADD', DUE, epoch, 'u' .. subject)
    local told = { epoch }
    for _, id in ipairs(ids_of(subject)) do
        if id ~= except then
            finish(id, read(id), now, reason)
            told[#told + 1] = id
        end
    end
    return told
end

if step == 'list' then
    local rows = {}
    for _, id in ipairs(ids_of(ARGV[3])) do
        local row = read(id)
        if is_live(row, ARGV[4]) then
            rows[#rows + 1] = { id, unpack(row) }
        end
    end
    return rows
end

if step == 'revoked_since' then
    local told = {}
    for _, id in ipairs(call('ZRANGEBYSCORE', ENDED, ARGV[3], '+inf')) do
        local row = read(id)
        told[#told + 1] = { id, row[ENDED_AT], row[REASON] }
    end
    return told
end

if step == 'count_due' then
    return call('ZCOUNT', DUE, '-inf', '(' .. ARGV[3])
end

-- Looks at what may be over: each is cleared away, or is due again at `before` or later.
-- Of what is due at one time, sessions (`s`) come before their users (`u`).
if step == 'delete_expired' then
    local before, limit, later = ARGV[3], tonumber(ARGV[4]), ARGV[5]
    local deleted = 0
    local members = call('ZRANGEBYSCORE', DUE, '-inf', '(' .. before, 'LIMIT', 0, 256)
    for _, member in ipairs(members) do
        if deleted == limit then
            break
        end
        local name = member:sub(2)
        if member:sub(1, 1) == 's' then
            local row = read(name)
            local over = row[EXPIRES]
            if row[ENDED_AT] ~= '' and tonumber(row[ENDED_AT]) < tonumber(over) then
                over = row[ENDED_AT]
            end
            if tonumber(over) < tonumber(before) then
                call('HDEL', ROWS, name)
                call('ZREM', SUBJECTS, row[SUBJECT] .. LIVE .. name, row[SUBJECT] .. OVER .. name)
                call('ZREM', ENDED, name)
                call('ZREM', DUE, member)
                deleted = deleted + 1
            else
                call('ZADD', DUE, over, member)
            end
        else
            local is_old = tonumber(call('HGET', EPOCHS, name)) < tonumber(before)
            if is_old and not has_any(name) then
                call('HDEL', EPOCHS, name)
                call('ZREM', DUE, member)
            else
                call('ZADD', DUE, later, member)
            end
        end
    end
    return { deleted, call('ZCOUNT', DUE, '-inf', '(' .. before) }
end

return redis.error_reply('ERR unknown step')
