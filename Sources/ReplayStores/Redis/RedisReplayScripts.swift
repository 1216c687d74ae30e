import Replay
import Storage

/// What the server does, one script per operation. All of them begin with the same words: limits, the time, the room.
///
/// A room is three keys, in this order:
/// 1. buffer: a stream, ids `<sequence>-0`; m: ``RedisReplayHeader`` and the bytes. Messages put aside stay where they are:
///    they are those up to `m.kt`.
/// 2. state: a hash; each user's name: serial, token, generation, connected, last seen, acknowledged or -1, last
///    sequence, quality, connections (MessagePack). Names have no zero byte, so fields with one are the room's own: its
///    incarnation, and the idempotency keys.
/// 3. seq: standing and counts (``RedisReplayRoomField``; a MessagePack array: a third of the time of a map, and half of
///    that of fields of a hash).
///
/// A publish is what happens most, and most messages are plain: no negotiation, no priority, no lifetime of their own.
/// While all that count are plain their numbers have no gaps, and trimming by count needs no look at them: the floor
/// moves, and the stream is cut once in a while (`m.lz`: so many are still there that do not count any more). Until then
/// `m.b` is too high, never too low.
///
/// Any of them may be gone (evicted, flushed, expired), or be something else. Without the third, or with a second one of
/// another incarnation, there is no room. A stream of another length than the counts say is worth nothing: it is
/// deleted, and all its numbers are below the floor. Something else makes the script fail; a reset removes it.
///
/// Times are microseconds of the server's clock, which all who use it share; sequences stay below 2^53. Numbers of 64
/// bits are hexadecimal text, and only ever compared.
struct RedisReplayScripts: Sendable {
    let publish: RedisScript
    let join: RedisScript
    let recover: RedisScript
    let acknowledge: RedisScript
    let drop: RedisScript
    let leave: RedisScript
    let state: RedisScript
    let quality: RedisScript
    let reset: RedisScript
    let touch: RedisScript
    let announce: RedisScript
    /// Run at each connect.
    let greet: RedisScript

    var all: [RedisScript] {
        [publish, join, recover, acknowledge, drop, leave, state, quality, reset, touch, announce]
    }

    /// With `prefix` before the names of all keys.
    init(
        _ configuration: Replay.Configuration, lifetimes: RedisReplayLifetimes, resetsWhenBehind: Bool, prefix: String,
        publishesLive: Bool, limitsAllRooms: Bool
    ) {
        // Where the room's name begins in the buffer's key.
        let name = Int64(prefix.utf8.count + "buffer:{".utf8.count + 1)
        let limits = [
            ("L", lifetimes.message), ("S", lifetimes.state), ("BT", lifetimes.bufferKey), ("MT", lifetimes.stateKey),
            ("W", Int64(configuration.window)), ("MW", Int64(configuration.maximumWindow)),
            ("RB", Int64(configuration.maximumRoomBytes)), ("KB", Int64(configuration.maximumRoomBytes / 4)),
            ("KN", Int64(configuration.maximumKept)), ("MB", Int64(configuration.maximumBatch)),
            ("MBB", Int64(configuration.maximumBatchBytes)), ("MK", Int64(configuration.maximumKeys)),
            ("KL", lifetimes.key), ("MM", Int64(configuration.maximumMembersPerRoom)),
            ("KOL", configuration.replaysKeptOnLoss ? 1 : 0), ("NT", configuration.needsToken ? 1 : 0),
            ("RS", resetsWhenBehind ? 1 : 0), ("FOREVERS", RedisReplayLifetimes.longest),
            ("FIELDS", Int64(RedisReplayRoomField.allCases.count)), ("CH", publishesLive ? name - 1 : 0),
            ("NA", name), ("AL", limitsAllRooms ? 1 : 0), ("MAXBYTES", Int64(configuration.maximumBytes)),
            ("MAXROOMS", Int64(configuration.maximumRooms)), ("MAXMEMBERS", Int64(configuration.maximumMembers)),
            // What a message costs in memory beside its bytes, if it fills its last block as badly as can be.
            ("OVERHEAD", Int64(Replay.Configuration.cost(ofMessage: 1) - 1)),
            ("STEP", Int64(min(max(configuration.maximumBytes >> 16, 1), 4_096))),
        ]
        let head =
            limits.map { "local \($0.0) = \($0.1)\n" }.joined()
            + "local TRIMMED, EXPIRED, EPOCH = \(LossReason.trimmed.rawValue), \(LossReason.expired.rawValue), "
            + "\(LossReason.epoch.rawValue)\n"
            + "local LIVE, PREFIX = \(Self.literal(prefix + "live:")), \(Self.literal(prefix))\n"
            + ["rooms", "used", "absent", "usage"].map {
                "local \($0.uppercased()) = \(Self.literal(prefix + "limits:" + $0))\n"
            }.joined() + "local SERVER = \(Self.literal(prefix + "limits:server"))\n" + Self.room
        publish = RedisScript(RedisReplayRoomField.indexed(head + Self.history + Self.limiting + Self.publishing))
        join = RedisScript(
            RedisReplayRoomField.indexed(
                head + Self.history + Self.limiting + Self.admitting + Self.replaying
                    + Self.joining))
        recover = RedisScript(
            RedisReplayRoomField.indexed(
                head + Self.history + Self.limiting + Self.replaying + Self.recovering))
        acknowledge = RedisScript(RedisReplayRoomField.indexed(head + Self.acknowledging))
        drop = RedisScript(RedisReplayRoomField.indexed(head + Self.dropping))
        leave = RedisScript(RedisReplayRoomField.indexed(head + Self.leaving))
        state = RedisScript(RedisReplayRoomField.indexed(head + Self.stating))
        quality = RedisScript(RedisReplayRoomField.indexed(head + Self.judging))
        reset = RedisScript(RedisReplayRoomField.indexed(head + Self.restarting))
        announce = RedisScript(RedisReplayRoomField.indexed(head + Self.announcing))
        greet = RedisScript(
            """
            local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
            if run then redis.call('SET', KEYS[1], string.sub(run, 1, 16)) end
            return 'done'
            """)
        touch = RedisScript(
            "redis.call('PEXPIRE', KEYS[1], \(lifetimes.stateKey)) redis.call('PEXPIRE', KEYS[2], \(lifetimes.stateKey)) "
                + "return 'done'")
    }
}

/// What is known of a room, by the names that it has in the scripts, and in the order in which it is stored.
enum RedisReplayRoomField: String, CaseIterable {
    /// Version, incarnation; epoch, last number; floor and its reason; the epoch before and why it ended.
    case v, id, e, t, f, fr, ee, er
    /// Messages that count and their bytes; those put aside, theirs, and up to which number; the first that counts, or 0
    /// for not known; when the oldest was published.
    case n, b, kn, kb, kt, r, ft
    /// Those of a negotiation among those that count.
    case ng
    /// The last time; when a member may have to be forgotten, or 0; when the keys' lives are to be prolonged.
    case c, w, x
    /// The next serial; members; the next place for an idempotency key; window and gap (see ``Configuration``); the
    /// last publish.
    case ns, mc, ki, win, gap, lp
    /// When the stream's life is to be prolonged; messages that do not count any more; the last that was not plain; bytes
    /// of all messages of the epoch.
    case bx, lz, sp, q
    /// Bytes and members accounted among those of all rooms; the last use that is.
    case ab, am, lu
    /// The server's run in which it was last used.
    case g

    /// The script with `m.name` written as `m[index]`.
    static func indexed(_ script: String) -> String {
        var places: [[UInt8]: Int] = [:]
        for (index, field) in allCases.enumerated() { places[Array(field.rawValue.utf8)] = index + 1 }
        let bytes = Array(script.utf8)
        var output: [UInt8] = []
        output.reserveCapacity(bytes.count)
        var index = 0
        var isInWord = false
        while index < bytes.count {
            if !isInWord, bytes[index] == 0x6D, index + 1 < bytes.count, bytes[index + 1] == 0x2E {
                var end = index + 2
                while end < bytes.count, isLetter(bytes[end]) { end += 1 }
                if let place = places[Array(bytes[index + 2..<end])] {
                    output += "m[\(place)]".utf8
                    index = end
                    continue
                }
            }
            isInWord = isLetter(bytes[index]) || bytes[index] == 0x2E
            output.append(bytes[index])
            index += 1
        }
        return String(decoding: output, as: UTF8.self)
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte | 0x20) || byte == 0x5F }
}

/// Microseconds; those of keys milliseconds, as the server wants them.
struct RedisReplayLifetimes: Sendable {
    static let longest: Int64 = 1 << 50

    let message: Int64
    let state: Int64
    let key: Int64
    /// A safety net: messages are dropped by their age.
    let bufferKey: Int64
    /// Long after the messages, somebody who missed nothing can still be told so.
    let stateKey: Int64

    init(_ configuration: Replay.Configuration) {
        message = min(max(configuration.messageLifetime.microseconds, 1), Self.longest)
        state = min(max(configuration.stateLifetime.microseconds, 1), Self.longest)
        key = min(max(configuration.keyLifetime.microseconds, 0), Self.longest)
        bufferKey = message / 500 &+ 1_000
        stateKey = max(state / 500, bufferKey &* 10) &+ 1_000
    }
}

extension RedisReplayScripts {
    /// Flags are those of ``MessageProperties/flags``; among them 2 is priority.
    ///
    /// Reads the room, writes it back, forgets members that stayed away.
    private static let room = #"""
        local buffer, state, seq = KEYS[1], KEYS[2], KEYS[3]
        local FOREVER = 9007199254740991
        local pack, unpacked, call = cmsgpack.pack, cmsgpack.unpack, redis.call
        local wall
        if ARGV[1] ~= '' then
            wall = tonumber(ARGV[1])
        else
            local t = call('TIME')
            wall = t[1] * 1000000 + t[2]
        end
        local time = wall
        local m

        -- Sequences have at most fourteen digits: as text, and as numbers of the server's commands, they are exact.
        local LAST = 99999999999999

        -- A user who may not publish can still number and keep.
        local function tell(words)
            if CH > 0 then redis.pcall('PUBLISH', LIVE .. string.sub(buffer, CH), words) end
        end

        local function here(asked) tell('at ' .. m.e .. ' ' .. m.t .. ' ' .. asked .. '\n') end

        -- What all rooms together have: a list of rooms by their last sign of life, one of those with messages by their last
        -- use, one of users by when they dropped out, and what is accounted for each room and for all.
        local function own() return string.sub(buffer, NA, -2) end

        -- A room's share grows and shrinks in steps, so that few publishes have to write it.
        local function account()
            if AL == 0 then return end
            local cost = m.b + OVERHEAD * (m.n + m.kn + m.lz)
            local share = m.ab
            if cost > share or cost == 0 or cost < share - 2 * STEP then share = math.ceil(cost / STEP) * STEP end
            if share ~= m.ab then call('HINCRBY', USAGE, '\0b', share - m.ab) end
            if m.mc ~= m.am then call('HINCRBY', USAGE, '\0m', m.mc - m.am) end
            if share ~= m.ab or m.mc ~= m.am then
                m.ab, m.am = share, m.mc
                call('HSET', USAGE, own(), share .. ' ' .. m.mc)
            end
        end

        local save

        -- What is seldom wanted, made when it is: a function takes time to make even if nobody calls it.
        local function seldom()
            local it = {}

            -- The room is no more.
            function it.release(name)
                if AL == 0 then return end
                local share, members = string.match(call('HGET', USAGE, name) or '0 0', '^(%d+) (%d+)$')
                if share ~= '0' then call('HINCRBY', USAGE, '\0b', -share) end
                if members ~= '0' then call('HINCRBY', USAGE, '\0m', -members) end
                call('HDEL', USAGE, name)
                call('ZREM', USED, name)
                call('ZREM', ROOMS, name)
                if call('ZCARD', ROOMS) == 0 then call('DEL', USAGE, ABSENT, USED) end
            end

            function it.remove()
                call('DEL', buffer, state, seq)
                it.release(own())
            end

            -- Of this room; since when, or not any more.
            function it.absent(user, since)
                if AL == 0 then return end
                local about = own() .. '\0' .. user
                if since then call('ZADD', ABSENT, since, about) else call('ZREM', ABSENT, about) end
            end

            -- False if that was the last member.
            function it.sweep()
                local all = call('HGETALL', state)
                local left, due = 0, 0
                for index = 1, #all, 2 do
                    if string.byte(all[index]) ~= 0 then
                        local u = unpacked(all[index + 1])
                        if u[4] == 0 and u[5] + S <= time then
                            call('HDEL', state, all[index])
                            it.absent(all[index])
                        else
                            left = left + 1
                            if u[4] == 0 and (due == 0 or u[5] + S < due) then due = u[5] + S end
                        end
                    end
                end
                if left == 0 then
                    it.remove()
                    return false
                end
                m.mc = left
                m.w = due == 0 and 0 or math.max(due, time + 1000000)
                return true
            end

            -- A new epoch, with nothing in it; members stay.
            function it.reset(epoch, reason)
                call('DEL', buffer)
                if m.t > 0 or m.ee == '' then m.ee = m.e end
                m.er = reason
                m.e = epoch
                m.t, m.f, m.n, m.kn, m.b, m.kb, m.kt, m.r, m.ng, m.ki = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
                m.lz, m.sp, m.q, m.lu = 0, 0, 0, 0
                if AL == 1 then call('ZREM', USED, own()) end
                local all = call('HGETALL', state)
                for index = 1, #all, 2 do
                    if string.byte(all[index]) ~= 0 then
                        local u = unpacked(all[index + 1])
                        u[6], u[7] = -1, 0
                        call('HSET', state, all[index], pack(u))
                    elseif all[index] ~= '\0' then
                        call('HDEL', state, all[index])
                    end
                end
                here('reset')
            end

            -- The server is another one than the room was last used on, or was started again: what it has may be older
            -- than what was given out.
            function it.doubt(run)
                local word = redis.sha1hex(m.e .. run .. m.id)
                it.reset(string.sub(word, 1, 15) .. '0', EPOCH)
                m.g = run
                save()
            end

            return it
        end

        function save()
            m.c = time
            account()
            if wall >= m.x or wall < m.x - L then
                if AL == 1 then call('ZADD', ROOMS, wall, own()) end
                m.x = wall + math.floor(L / 4)
                call('SET', seq, pack(m), 'PX', MT)
                call('PEXPIRE', state, MT)
            else
                call('SET', seq, pack(m), 'KEEPTTL')
            end
        end

        local function member(raw)
            if not raw then return nil end
            local u = unpacked(raw)
            if u[4] == 0 and u[5] + S <= time then return nil end
            return u
        end

        local function load()
            local raw, run
            if AL == 1 then
                local both = call('MGET', seq, SERVER)
                raw, run = both[1], both[2]
                -- Also of another type: then this says so.
                if not raw then raw = call('GET', seq) end
            else
                raw = call('GET', seq)
            end
            if not raw then return false end
            m = unpacked(raw)
            if type(m) ~= 'table' or m.v ~= 2 then error('not a room') end
            if call('HGET', state, '\0') ~= m.id then return false end
            if m.c > time then time = m.c end
            if run and run ~= m.g then seldom().doubt(run) end
            if m.w == 0 or time < m.w then return true end
            return seldom().sweep()
        end

        local function touched(u)
            if u[4] == 1 then u[5] = time end
        end

        local function put(name, u) call('HSET', state, name, pack(u)) end

        local function checked()
            if not load() then return nil, 'unknownRoom' end
            local u = member(call('HGET', state, ARGV[2]))
            if not u then return nil, 'unknownUser' end
            if u[3] ~= ARGV[3] then return nil, 'stale' end
            return u
        end

        """#

    /// Messages that go.
    private static let history = #"""
        local HEADER = '>ddddddBBc16'

        local function parsed(item)
            local message = item[2][2]
            local s, p, x, q, from, to, kind, flags, negotiation = struct.unpack(HEADER, message)
            return s, p, x, from, to, kind, flags, negotiation, #message - 66, q
        end

        local function iskept(kind, flags) return kind == 1 or kind == 2 or flags % 4 >= 2 end

        local function forget(s, x, size, reason)
            m.b = m.b - size
            if x > time and s > m.f then
                m.f = s
                m.fr = reason
            end
        end

        -- Cuts off what does not count any more. It is all at the beginning, and its numbers have no gaps.
        local function flush()
            if m.lz == 0 then return end
            local _, _, _, _, _, _, _, _, size, before = parsed(call('XRANGE', buffer, '-', '+', 'COUNT', 1)[1])
            local after = before
            if m.lz > 1 then
                _, _, _, _, _, _, _, _, _, after = parsed(call('XRANGE', buffer, m.r - 1, m.r - 1)[1])
            end
            call('XTRIM', buffer, 'MINID', '=', m.r)
            m.b = m.b - size - (after - before)
            m.lz = 0
        end

        -- The stream and the counts must agree; if not, nothing in it proves anything.
        local function compare()
            if call('XLEN', buffer) == m.n + m.kn + m.lz then return end
            call('DEL', buffer)
            if m.t > m.f then
                m.f = m.t
                m.fr = (m.lp + L <= time) and EXPIRED or TRIMMED
            end
            m.n, m.kn, m.b, m.kb, m.kt, m.r, m.ng, m.lz, m.sp = 0, 0, 0, 0, 0, 0, 0, 0, 0
        end

        local function dropkept(reason)
            local items = call('XRANGE', buffer, '-', '+', 'COUNT', 1)
            local s, _, x, _, _, _, _, _, size = parsed(items[1])
            call('XDEL', buffer, items[1][1])
            m.kn = m.kn - 1
            m.kb = m.kb - size
            forget(s, x, size, reason)
        end

        local function expire()
            if m.n + m.kn == 0 or m.ft + L > time then return end
            flush()
            while m.n + m.kn > 0 do
                for _, item in ipairs(call('XRANGE', buffer, '-', '+', 'COUNT', 16)) do
                    local s, p, x, _, _, kind, flags, _, size = parsed(item)
                    if p + L > time then
                        m.ft = p
                        return
                    end
                    call('XDEL', buffer, item[1])
                    if s <= m.kt then
                        m.kn = m.kn - 1
                        m.kb = m.kb - size
                    else
                        m.n = m.n - 1
                        m.r = 0
                        if kind ~= 0 then m.ng = m.ng - 1 end
                    end
                    forget(s, x, size, EXPIRED)
                end
            end
        end

        """#

    /// Room for what comes, at the cost of what was not used for longest.
    private static let limiting = #"""
        local function keyof(kind, name) return PREFIX .. kind .. ':{' .. name .. '}' end
        local function total(what) return tonumber(call('HGET', USAGE, what) or 0) end

        local function use()
            if AL == 0 or wall >= m.lu and wall < m.lu + 1000000 then return end
            m.lu = wall
            call('ZADD', USED, wall, own())
        end

        local function makespace(size)
            if AL == 0 or m.b + size + OVERHEAD * (m.n + m.kn + m.lz + 1) <= m.ab then return end

            local function isfull()
                local cost = m.b + size + OVERHEAD * (m.n + m.kn + m.lz + 1)
                return total('\0b') + math.max(math.ceil(cost / STEP) * STEP - m.ab, 0) > MAXBYTES
            end

            -- All messages of another room.
            local function evict(name)
                local mine, here = m, buffer
                local raw = call('GET', keyof('seq', name))
                call('ZREM', USED, name)
                if not raw then return seldom().release(name) end
                m, buffer = unpacked(raw), keyof('buffer', name)
                call('DEL', buffer)
                if m.t > m.f then m.f, m.fr = m.t, TRIMMED end
                m.n, m.kn, m.b, m.kb, m.kt, m.r, m.ng, m.lz, m.sp, m.lu = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
                if m.ab > 0 then call('HINCRBY', USAGE, '\0b', -m.ab) end
                m.ab = 0
                call('HSET', USAGE, name, '0 ' .. m.am)
                call('SET', keyof('seq', name), pack(m), 'KEEPTTL')
                m, buffer = mine, here
            end

            if not isfull() then return end
            flush()
            while isfull() do
                local oldest = call('ZRANGE', USED, 0, 1)
                local name = oldest[1]
                if name == own() then name = oldest[2] end
                if name then
                    evict(name)
                elseif m.kn > 0 then
                    dropkept(TRIMMED)
                elseif m.n > 0 then
                    local item = call('XRANGE', buffer, m.kt + 1, '+', 'COUNT', 1)[1]
                    local s, _, x, _, _, k, _, _, bytes = parsed(item)
                    call('XDEL', buffer, item[1])
                    m.n, m.r = m.n - 1, 0
                    if k ~= 0 then m.ng = m.ng - 1 end
                    forget(s, x, bytes, TRIMMED)
                else
                    break
                end
            end
        end

        """#

    /// Places for rooms and members, at the cost of those who dropped out longest ago.
    private static let admitting = #"""
        -- False if there is nobody to forget.
        local function forgetoldest(except)
            local oldest = call('ZRANGE', ABSENT, 0, 0)[1]
            if not oldest then return false end
            local name, user = string.match(oldest, '^(%Z+)%z(.+)$')
            if name == except then return false end
            call('ZREM', ABSENT, oldest)
            local raw, about = call('GET', keyof('seq', name)), call('HGET', keyof('state', name), user)
            if not raw then
                seldom().release(name)
            elseif about and unpacked(about)[4] == 0 then
                local mine = m
                m = unpacked(raw)
                call('HDEL', keyof('state', name), user)
                m.mc = m.mc - 1
                if m.mc <= 0 then
                    call('DEL', keyof('buffer', name), keyof('state', name), keyof('seq', name))
                    seldom().release(name)
                else
                    if m.mc ~= m.am then call('HINCRBY', USAGE, '\0m', m.mc - m.am) end
                    m.am = m.mc
                    call('HSET', USAGE, name, m.ab .. ' ' .. m.mc)
                    call('SET', keyof('seq', name), pack(m), 'KEEPTTL')
                end
                m = mine
            end
            return true
        end

        -- Rooms whose keys have expired, a few at a time.
        local function reap(count)
            for _, name in ipairs(call('ZRANGE', ROOMS, 0, count - 1)) do
                if call('EXISTS', keyof('seq', name)) == 0 then seldom().release(name) end
            end
        end

        local function hasroomplace()
            if AL == 0 then return true end
            reap(2)
            if call('ZCARD', ROOMS) < MAXROOMS then return true end
            reap(16)
            for _ = 1, 16 do
                if call('ZCARD', ROOMS) < MAXROOMS or not forgetoldest() then break end
            end
            return call('ZCARD', ROOMS) < MAXROOMS
        end

        local function hasmemberplace()
            if AL == 0 or total('\0m') < MAXMEMBERS then return true end
            reap(16)
            if total('\0m') >= MAXMEMBERS then forgetoldest(own()) end
            return total('\0m') < MAXMEMBERS
        end

        """#

    private static let publishing = #"""
        local fromname, toname, kind, flags, negotiation = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
        local payload, key = ARGV[9], ARGV[8]
        if not load() then return 'unknownRoom' end
        local from, to = 0, 0
        if fromname ~= '' then
            local u = member(call('HGET', state, fromname))
            if not u then return 'unknownUser' end
            from = u[1]
            if time - u[5] >= 1000000 then
                touched(u)
                put(fromname, u)
            end
        end
        if toname ~= '' then
            local u = member(call('HGET', state, toname))
            if not u then return 'unknownRecipient' end
            to = u[1]
        end
        local field = '\0k' .. key .. fromname
        if key ~= '' then
            local known = call('HGET', state, field)
            if known then
                local s, x = unpacked(known)
                if x > time then return {'p', m.e, s, 1} end
            end
        end
        if m.t >= LAST then error('no numbers are left') end
        if m.t == 0 then call('DEL', buffer) end
        compare()
        expire()

        local lifetime = tonumber(ARGV[7])
        local expires = lifetime < FOREVERS and math.min(time + lifetime, FOREVER) or FOREVER
        local isplain = kind == 0 and flags % 4 < 2 and expires == FOREVER
        makespace(#payload)
        use()
        if not isplain then flush() end

        -- A newer offer replaces the older one and its candidates, a newer answer the older one.
        if (kind == 1 or kind == 2) and (m.ng > 0 or m.kn > 0) then
            for _, item in ipairs(call('XRANGE', buffer, '-', '+')) do
                local s, _, _, f, t, k, _, n, size = parsed(item)
                if f == from and t == to and n == negotiation and (k == kind or k == 3 and kind == 1) then
                    call('XDEL', buffer, item[1])
                    m.b = m.b - size
                    if s <= m.kt then
                        m.kn = m.kn - 1
                        m.kb = m.kb - size
                    else
                        m.n = m.n - 1
                        m.ng = m.ng - 1
                        if s == m.r then m.r = 0 end
                    end
                end
            end
        end

        m.t = m.t + 1
        m.q = m.q + #payload
        call('XADD', buffer, m.t, 'm',
            struct.pack(HEADER, m.t, time, expires, m.q, from, to, kind, flags, negotiation) .. payload)
        -- The key outlives the messages by as much again, so it need not be told each time.
        if m.n + m.kn + m.lz == 0 or wall >= m.bx or wall < m.bx - L then
            call('PEXPIRE', buffer, BT)
            m.bx = wall + math.floor(L / 4)
        end
        if m.n + m.kn == 0 then m.ft = time end
        m.lp = time
        if m.n == 0 then m.r = m.t end
        m.n = m.n + 1
        m.b = m.b + #payload
        if kind ~= 0 then m.ng = m.ng + 1 end
        if not isplain then m.sp = m.t end

        if m.r > m.sp and m.kn == 0 and m.n > m.win then
            local count = m.n - m.win
            m.f, m.fr = m.r + count - 1, TRIMMED
            m.r, m.n, m.lz = m.r + count, m.win, m.lz + count
        end
        if m.lz >= 16 or m.b > RB then flush() end
        if m.r == 0 then m.r = (parsed(call('XRANGE', buffer, m.kt + 1, '+', 'COUNT', 1)[1])) end
        while m.n > m.win or m.b > RB or m.t - m.r >= 4 * m.win do
            flush()
            if m.n > 1 then
                local items = call('XRANGE', buffer, m.kt + 1, '+', 'COUNT', 2)
                local s, _, x, _, _, k, f, _, size = parsed(items[1])
                m.n = m.n - 1
                if k ~= 0 then m.ng = m.ng - 1 end
                if iskept(k, f) and KN > 0 and x > time then
                    m.kt = s
                    m.kn = m.kn + 1
                    m.kb = m.kb + size
                    while m.kn > KN or m.kb > KB do dropkept(TRIMMED) end
                else
                    call('XDEL', buffer, items[1][1])
                    forget(s, x, size, TRIMMED)
                end
                m.r = (parsed(items[2]))
            elseif m.kn > 0 then
                dropkept(TRIMMED)
            else
                break
            end
        end

        if key ~= '' and MK > 0 then
            local slot = '\0r' .. m.ki % MK
            local old = call('HGET', state, slot)
            if old then
                local known = call('HGET', state, old)
                if known then
                    local _, _, at = unpacked(known)
                    if at == m.ki % MK then call('HDEL', state, old) end
                end
            end
            call('HSET', state, field, pack(m.t, math.min(time + KL, FOREVER), m.ki % MK), slot, field)
            m.ki = m.ki + 1
        end
        save()
        if CH > 0 then
            tell(m.e .. ' ' .. m.t .. ' ' .. kind .. ' ' .. flags .. ' ' .. negotiation .. ' ' .. #fromname .. ' '
                .. #toname .. '\n' .. fromname .. toname .. payload)
        end
        return {'p', m.e, m.t, 0}
        """#

    /// `presented` at ARGV[at]: n, u or p, then epoch and sequence.
    private static let replaying = #"""
        local function standing() return {m.e, m.t, m.f, m.fr, m.ee, m.er} end

        local function adapt(kind, epoch, sequence, acknowledged)
            if MW <= W then return end
            local since
            if kind == 'p' and epoch == m.e then
                since = sequence
            elseif kind == 'n' then
                since = acknowledged >= 0 and acknowledged or m.t
            end
            if not since or since > m.t then return end
            m.gap = math.max(m.t - since, m.gap - math.floor((m.gap + 15) / 16))
            local wanted = m.gap > MW and m.gap or m.gap + math.floor(m.gap / 4)
            m.win = math.min(math.max(wanted, W), MW)
        end

        -- nil if it is more than one batch may carry.
        local function collect(serial, since, onlykept)
            local out, count, total, skipped = {}, 0, 0, 0
            local start = since + 1
            while true do
                local items = call('XRANGE', buffer, start, '+', 'COUNT', 128)
                local last
                for _, item in ipairs(items) do
                    local s, _, x, from, to, kind, flags, _, size = parsed(item)
                    last = s
                    if (to == 0 or to == serial) and from ~= serial then
                        if x <= time then
                            skipped = skipped + 1
                        elseif not onlykept or iskept(kind, flags) then
                            if count >= MB or total + size > MBB then return nil, 0 end
                            count = count + 1
                            total = total + size
                            out[count] = item[2][2]
                        end
                    end
                end
                if #items < 128 then return out, skipped end
                start = last + 1
            end
        end

        -- What the caller needs for its verdict: the standing, where the client goes on, what it had acknowledged,
        -- how the replay went (0: none, 1: complete, 2: too much), and the messages.
        local function replay(u, at, epoch)
            compare()
            expire()
            local kind, presented, sequence = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
            local acknowledged = u[6]
            adapt(kind, presented, sequence, acknowledged)
            local known = standing()
            local since
            if kind == 'p' and presented == m.e and sequence <= m.t then
                since = sequence
            elseif kind == 'n' and acknowledged >= 0 then
                since = acknowledged
            end
            local mode, out, skipped = 0, {}, 0
            if since then
                local all
                if since >= m.f then
                    if m.n + m.kn > 0 then use() end
                    all, skipped = collect(u[1], since, false)
                    mode = all and 1 or 2
                end
                if not all and KOL == 1 then all = collect(u[1], since, true) end
                if mode ~= 1 then skipped = 0 end
                out = all or out
            end
            if kind == 'p' and presented == m.e and sequence > m.t and RS == 1 then
                -- The numbers went back, by a failover: nothing that was said of them holds.
                put(ARGV[2], u)
                seldom().reset(epoch, EPOCH)
                u[6] = -1
            end
            u[7] = m.t
            return {known, m.e, m.t, acknowledged, mode, skipped, out}
        end

        """#

    private static let joining = #"""
        local name, generation, token, epoch = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
        if not load() then
            seldom().remove()
            if not hasroomplace() then return 'tooManyRooms' end
            time = wall
            m = {}
            for index = 1, FIELDS do m[index] = 0 end
            m.v, m.id, m.e, m.fr, m.ee, m.er, m.ns, m.win = 2, epoch, epoch, TRIMMED, '', EPOCH, 1, W
            m.g = AL == 1 and call('GET', SERVER) or ''
            call('HSET', state, '\0', m.id)
        end
        local raw = call('HGET', state, name)
        local u = member(raw)
        local function unproven() return {standing(), m.e, m.t, -1, 3, 0, {}} end
        if not u then
            if not raw then
                if m.mc >= MM or not hasmemberplace() then
                    if m.mc == 0 then seldom().remove() end
                    return 'tooManyMembers'
                end
                m.mc = m.mc + 1
            end
            if raw then seldom().absent(name) end
            u = {m.ns, token, generation, 1, time, -1, m.t, 0, 1}
            m.ns = m.ns + 1
            put(name, u)
            save()
            return {'j', unproven(), generation, token, 0, 0, 0, ''}
        end
        local wasconnected, age, before = u[4], time - u[5], u[3]
        if wasconnected == 0 then seldom().absent(name) end
        u[3], u[4], u[5], u[9] = generation, 1, time, u[9] + 1
        local result
        if ARGV[6] == '1' and (ARGV[7] == u[2] or ARGV[7] == '' and NT == 0) then
            result = replay(u, 8, epoch)
        else
            u[1], u[2], u[6], u[7] = m.ns, token, -1, m.t
            m.ns = m.ns + 1
            result = unproven()
        end
        put(name, u)
        save()
        return {'j', result, generation, u[2], 1, wasconnected, age, before}
        """#

    private static let recovering = #"""
        local u, refusal = checked()
        if not u then return refusal end
        touched(u)
        local result = replay(u, 5, ARGV[4])
        put(ARGV[2], u)
        save()
        return {'r', result}
        """#

    private static let acknowledging = #"""
        local u, refusal = checked()
        if not u then return refusal end
        touched(u)
        local sequence = tonumber(ARGV[6])
        if ARGV[4] == 'p' and ARGV[5] == m.e and sequence <= m.t then
            u[6] = math.max(u[6], sequence)
            u[7] = math.max(u[7], sequence)
        end
        put(ARGV[2], u)
        save()
        return 'done'
        """#

    private static let dropping = #"""
        local u, refusal = checked()
        if not u then return refusal end
        if u[4] == 1 then
            u[4], u[5] = 0, time
            put(ARGV[2], u)
            seldom().absent(ARGV[2], time)
            if m.w == 0 or time + S < m.w then m.w = time + S end
        end
        save()
        return 'done'
        """#

    private static let leaving = #"""
        local u, refusal = checked()
        if not u then return refusal end
        m.mc = m.mc - 1
        seldom().absent(ARGV[2])
        if m.mc <= 0 then
            seldom().remove()
        else
            call('HDEL', state, ARGV[2])
            save()
        end
        return 'done'
        """#

    private static let stating = #"""
        if not load() then return 'unknownRoom' end
        local u = member(call('HGET', state, ARGV[2]))
        if not u then return 'unknownUser' end
        return {'s', u[4], time - u[5], u[7], u[8], u[9]}
        """#

    /// ARGV[3...6]: the new quality, for each that the last one may have been.
    private static let judging = #"""
        if not load() then return 'unknownRoom' end
        local u = member(call('HGET', state, ARGV[2]))
        if not u then return 'unknownUser' end
        local before = u[8]
        u[8] = tonumber(ARGV[3 + before])
        put(ARGV[2], u)
        return {'q', before}
        """#

    /// Says on the room's channel where the room is.
    private static let announcing = #"""
        local isthere = pcall(function()
            m = unpacked(call('GET', seq))
            if m.v ~= 2 or call('HGET', state, '\0') ~= m.id then error('not a room') end
        end)
        if isthere then here(ARGV[2]) else tell('at - 0 ' .. ARGV[2] .. '\n') end
        return 'done'
        """#

    private static func literal(_ text: String) -> String {
        "'"
            + text.utf8.map { "\\" + String(repeating: "0", count: $0 < 10 ? 2 : $0 < 100 ? 1 : 0) + String($0) }
            .joined() + "'"
    }

    /// What is not a room is removed: otherwise nothing could ever be said under its name again.
    private static let restarting = #"""
        local isfine, isthere = pcall(load)
        if isfine and isthere then isfine = pcall(seldom().reset, ARGV[2], tonumber(ARGV[3])) end
        if not isfine or not isthere then
            pcall(seldom().remove)
            call('DEL', buffer, state, seq)
            return 'unknownRoom'
        end
        save()
        return 'done'
        """#
}
