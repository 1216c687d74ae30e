import Wire

/// A session as bytes, for databases. Version 1, big-endian:
///
///     version 8 | client 64 | created 64 | last connected 64 | last seen 64   (milliseconds since 1970)
///     fingerprint: length 8, bytes | address 128, scope 32, port 16 | candidate type 8 | connections 32
///     next generation 64 | dead through 64
///     tokens: count 8, each SHA-256 256, generation 64 | candidates: count 8, each length 16, UTF-8
///
/// Tokens are in it as digests only. Connections are not in it: they belong to a process. When the session ends is the
/// database's to say, by its own clock.
enum SessionRecord {
    static let maximumSize = 16_384
    private static let version: UInt8 = 1

    /// `offset`: the wall clock minus the clock of the session's instants.
    static func encode(_ session: Session, unixOffset offset: Duration) -> [UInt8] {
        var output = Output()
        output.write(version)
        output.write(session.clientID.value)
        for instant in [session.created, session.lastConnected, session.lastSeen] {
            output.write(milliseconds(instant, offset))
        }
        output.write(UInt8(clamping: session.clientFingerprint.digest.count))
        output.bytes += session.clientFingerprint.digest
        output.write(session.lastAddress.ip.high)
        output.write(session.lastAddress.ip.low)
        output.write(session.lastAddress.scope)
        output.write(session.lastAddress.port)
        output.write(code(session.preferredCandidateType))
        output.write(UInt32(clamping: session.connectionCount))
        output.write(session.nextGeneration)
        output.write(session.deadThrough)
        let tokens = session.tokens.prefix(Session.maximumPendingTokens + 1)
        output.write(UInt8(clamping: tokens.count))
        for issued in tokens {
            let words = issued.digest.words
            for word in [words.0, words.1, words.2, words.3] { output.write(word) }
            output.write(issued.generation)
        }
        let candidates = session.lastCandidates.prefix(Session.maximumCandidates)
            .filter { $0.utf8.count <= Session.maximumCandidateBytes }
        output.write(UInt8(clamping: candidates.count))
        for candidate in candidates {
            output.write(UInt16(clamping: candidate.utf8.count))
            output.bytes += Array(candidate.utf8)
        }
        return output.bytes
    }

    /// nil for everything that ``encode(_:unixOffset:)`` does not make. Times after `now` become `now`.
    static func decode(_ bytes: [UInt8], unixOffset offset: Duration, now: Instant, expires: Instant) -> Session? {
        guard bytes.count <= maximumSize else { return nil }
        let span = bytes.span.bytes
        var input = ByteReader(span)
        guard input.read(UInt8.self) == version, let client = input.read(UInt64.self),
            let created = input.read(Int64.self), let connected = input.read(Int64.self),
            let seen = input.read(Int64.self), let length = input.read(UInt8.self),
            let digest = input.read(count: Int(length)),
            let fingerprint = ClientFingerprint(digest: digest.copied()),
            let high = input.read(UInt64.self), let low = input.read(UInt64.self), let scope = input.read(UInt32.self),
            let port = input.read(UInt16.self), let type = input.read(UInt8.self).flatMap(candidateType),
            let connections = input.read(UInt32.self), let nextGeneration = input.read(UInt64.self),
            let deadThrough = input.read(UInt64.self), let tokens = readTokens(&input),
            let candidates = readCandidates(&input), input.remaining == 0
        else { return nil }
        return Session(
            clientID: ClientID(client), created: instant(created, offset, now), clientFingerprint: fingerprint,
            lastConnected: instant(connected, offset, now), lastSeen: instant(seen, offset, now),
            lastAddress: SocketAddress(ip: IPAddress(high: high, low: low), port: port, scope: scope),
            preferredCandidateType: type, lastCandidates: candidates, connectionCount: Int(connections), live: [],
            expires: expires, tokens: tokens, nextGeneration: nextGeneration, deadThrough: deadThrough)
    }

    private static func readTokens(_ input: inout ByteReader) -> [IssuedToken]? {
        guard let count = input.read(UInt8.self), count <= Session.maximumPendingTokens + 1 else { return nil }
        var tokens: [IssuedToken] = []
        for _ in 0..<count {
            guard let first = input.read(UInt64.self), let second = input.read(UInt64.self),
                let third = input.read(UInt64.self), let fourth = input.read(UInt64.self),
                let generation = input.read(UInt64.self)
            else { return nil }
            tokens.append(
                IssuedToken(digest: TokenDigest(words: (first, second, third, fourth)), generation: generation))
        }
        return tokens
    }

    private static func readCandidates(_ input: inout ByteReader) -> [String]? {
        guard let count = input.read(UInt8.self), count <= Session.maximumCandidates else { return nil }
        var candidates: [String] = []
        for _ in 0..<count {
            guard let length = input.read(UInt16.self), length <= Session.maximumCandidateBytes,
                let bytes = input.read(count: Int(length)),
                let text = String(validating: bytes.copied(), as: UTF8.self)
            else { return nil }
            candidates.append(text)
        }
        return candidates
    }

    private static func milliseconds(_ instant: Instant, _ offset: Duration) -> Int64 {
        (instant + offset).nanoseconds / 1_000_000
    }

    private static func instant(_ milliseconds: Int64, _ offset: Duration, _ now: Instant) -> Instant {
        min(Instant(nanoseconds: Duration.milliseconds(milliseconds).nanoseconds) - offset, now)
    }

    private static func code(_ type: CandidateType) -> UInt8 {
        switch type {
        case .host: 0
        case .serverReflexive: 1
        case .peerReflexive: 2
        case .relay: 3
        }
    }

    private static func candidateType(_ code: UInt8) -> CandidateType? {
        switch code {
        case 0: .host
        case 1: .serverReflexive
        case 2: .peerReflexive
        case 3: .relay
        default: nil
        }
    }

    private struct Output {
        var bytes: [UInt8] = []

        mutating func write(_ value: some FixedWidthInteger) {
            var shift = value.bitWidth
            while shift > 0 {
                shift -= 8
                bytes.append(UInt8(truncatingIfNeeded: value >> shift))
            }
        }
    }
}
