import CSystem
import Wire

/// One question to the sentinels of a service: where is the master? Runs on a thread that may wait.
struct SentinelQuestion {
    let sentinels: RedisAddress.Sentinels
    /// Of each sentinel.
    let timeout: Duration

    /// Asks one after the other until one knows.
    func ask() -> Resolution.Answer {
        var problem = "no sentinel"
        // Not always the same one first.
        let start = Int.random(in: 0..<max(sentinels.hosts.count, 1))
        for index in sentinels.hosts.indices {
            let sentinel = sentinels.hosts[(index + start) % sentinels.hosts.count]
            switch ask(sentinel) {
            case .endpoints(let endpoints): return .endpoints(endpoints)
            case .failed(let text): problem = "the sentinel \(sentinel.name):\(sentinel.port): \(text)"
            }
        }
        return .failed(problem)
    }

    private func ask(_ sentinel: RedisAddress.Host) -> Resolution.Answer {
        let deadline = Instant(nanoseconds: cs_monotonic_ns()) + timeout
        guard case .endpoints(let endpoints) = Resolution.resolve(sentinel.name, sentinel.port, isNumeric: false) else {
            return .failed("its name cannot be resolved")
        }
        var problem = "no address"
        for endpoint in endpoints {
            do throws(RedisDownReason) {
                let link = try RedisLink(connectingTo: endpoint, maximumReplyBytes: 65_536)
                guard wait(link, CS_WRITE, deadline) else { return .failed("no answer in time") }
                if let failure = link.connectFailure() { throw .cannotConnect(failure) }
                return talk(link, deadline)
            } catch {
                problem = error.description
            }
        }
        return .failed(problem)
    }

    private func talk(_ link: RedisLink, _ deadline: Instant) -> Resolution.Answer {
        var commands: [[RedisArgument]] = []
        if let password = sentinels.password {
            commands.append(["AUTH"] + (sentinels.user.map { [.text($0)] } ?? []) + [.text(password)])
        }
        commands.append(["SENTINEL", "get-master-addr-by-name", .text(sentinels.master)])
        var output = commands.flatMap { RedisEncoder.encode($0) }[...]
        var replies: [RedisReply] = []
        var input = [UInt8](repeating: 0, count: 4_096)
        while true {
            if !output.isEmpty {
                switch unsafe output.withUnsafeBytes({ unsafe link.write($0) }) {
                case .done(let count): output = output.dropFirst(count)
                case .later: break
                case .closed: return .failed("closed")
                case .failed(let text): return .failed(text)
                }
            }
            guard wait(link, output.isEmpty ? CS_READ : CS_READ | CS_WRITE, deadline) else {
                return .failed("no answer in time")
            }
            switch unsafe input.withUnsafeMutableBytes({ unsafe link.read($0) }) {
            case .done(let count):
                guard unsafe input.withUnsafeBytes({ unsafe link.feed(UnsafeRawBufferPointer(rebasing: $0[..<count])) })
                else { return .failed("not Redis") }
            case .later: continue
            case .closed: return .failed("closed")
            case .failed(let text): return .failed(text)
            }
            reading: while true {
                switch link.nextReply() {
                case .incomplete: break reading
                case .violation: return .failed("not Redis")
                case .reply(let reply): replies.append(reply)
                }
            }
            if replies.count >= commands.count { return answer(replies[commands.count - 1]) }
        }
    }

    private func answer(_ reply: RedisReply) -> Resolution.Answer {
        // The text of an error may repeat what it was asked with.
        if case .error(let error) = reply { return .failed(error.code) }
        guard let words = reply.arrayValue, words.count == 2, let host = words[0].bytesValue,
            let name = String(validating: host, as: UTF8.self), let digits = words[1].bytesValue,
            let port = UInt16(String(decoding: digits, as: UTF8.self)), port > 0, !name.utf8.contains(0)
        else { return .failed("knows no master of this name") }
        return Resolution.resolve(name, port, isNumeric: false)
    }

    private func wait(_ link: RedisLink, _ want: Int, _ deadline: Instant) -> Bool {
        let left = deadline - Instant(nanoseconds: cs_monotonic_ns())
        guard left > .zero else { return false }
        var entries = [cs_wait_entry(fd: link.fd, want: Int32(want), got: 0)]
        return unsafe cs_wait_any(&entries, 1, left.nanoseconds) >= 0
            && Instant(nanoseconds: cs_monotonic_ns()) < deadline
    }
}
