import Testing
import Wire

@testable import Reload

private let noon: Int64 = 1_800_000_000
private let secret = [UInt8]((0..<32).map { UInt8($0) })
private let otherSecret = [UInt8](repeating: 0xA5, count: 64)

private func contents(client: UInt64 = 7, lifetime: Int64 = 86_400, at now: Int64 = noon) -> TicketContents {
    TicketContents(
        clientID: ClientID(client), fingerprint: ClientFingerprint(digest: (0..<32).map { UInt8($0 &* 7) })!,
        expires: now + lifetime, certificate: 0xC3, maximumMessageSize: 262_144, derivesInit: true)
}

extension TicketKeys {
    fileprivate func open(_ ufrag: String, at now: Int64 = noon) -> OpenedTicket { open(Array(ufrag.utf8), at: now) }

    fileprivate func open(_ ufrag: [UInt8], at now: Int64 = noon) -> OpenedTicket {
        open(ufrag.span.bytes, wallClock: now)
    }

    fileprivate func password(_ ufrag: String, at now: Int64 = noon) -> String? {
        password(Array(ufrag.utf8), at: now)
    }

    fileprivate func password(_ ufrag: [UInt8], at now: Int64 = noon) -> String? {
        password(for: ufrag.span.bytes, wallClock: now).map { String(decoding: $0, as: UTF8.self) }
    }

    fileprivate func sealed(
        _ contents: TicketContents = contents(), at now: Int64 = noon, seed: UInt64 = 1
    ) -> (ufrag: String, password: String)? {
        var random = SeededGenerator(seed: seed)
        return seal(contents, wallClock: now, using: &random)
    }
}

private func sealedBytes(_ ufrag: String) -> [UInt8]? {
    let text = Array(ufrag.utf8)
    return Base64.bytes(text.span.bytes, from: 5)
}

private func isTicket(_ text: String) -> Bool {
    let bytes = Array(text.utf8)
    return TicketKeys.isTicket(bytes.span.bytes)
}

@Suite struct Tickets {
    let keys = TicketKeys(secrets: [secret])

    @Test func comeBackAsTheyWereSealed() throws {
        for seed in 0..<200 {
            var random = SeededGenerator(seed: UInt64(seed))
            let sealed = TicketContents(
                clientID: ClientID(random.next()), fingerprint: ClientFingerprint(digest: random.bytes(32))!,
                expires: Int64.random(in: noon + 1...noon + 7 * 86_400, using: &random),
                certificate: UInt8.random(in: 0...255, using: &random),
                maximumMessageSize: UInt32.random(in: 0...UInt32.max, using: &random),
                derivesInit: Bool.random(using: &random))
            let ticket = try #require(keys.seal(sealed, wallClock: noon, using: &random))
            #expect(keys.open(ticket.ufrag) == .contents(sealed), "seed \(seed)")
            #expect(keys.password(ticket.ufrag) == ticket.password, "seed \(seed)")
        }
    }

    /// RFC 8839 section 5.4: both are ice-chars; 4 to 256 and 22 to 256. Every check carries the fragment: under 120.
    @Test func haveTheFormOfICECredentials() throws {
        let ticket = try #require(keys.sealed())
        let isICE = (ticket.ufrag + ticket.password).allSatisfy {
            $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "+" || $0 == "/")
        }
        #expect(isICE)
        #expect(ticket.ufrag.hasPrefix("lrc1/"))
        #expect(ticket.ufrag.utf8.count == TicketKeys.ufragLength)
        #expect(TicketKeys.ufragLength == 117)
        #expect(ticket.password.utf8.count == 43)
        #expect(isTicket(ticket.ufrag))
    }

    /// The format of version 1, pinned: servers of different versions share secrets. Both texts were
    /// computed independently, with HKDF, HMAC and AES-GCM of other implementations.
    @Test func keepTheirFormat() throws {
        let ticket = try #require(keys.sealed(seed: 42))
        #expect(
            ticket.ufrag
                == "lrc1/AAehICoElW7rLyYy170D8Wayb3wtU4mCaI4G4I3KnNoQKwx1SajKQpq5"
                + "VVpXvlSjbXpIRyS3Y/EuJhGiNd6rIsIlQ2vYv8dUnvhQQoLUt4yWjAGb")
        #expect(ticket.password == "k4RWiZvJHAyQSbwo056KIfhYIJJq819sX3LrOQV5t6o")
    }

    @Test func differEachTime() throws {
        let first = try #require(keys.sealed(seed: 1))
        let second = try #require(keys.sealed(seed: 2))
        #expect(first.ufrag != second.ufrag)
        #expect(first.password != second.password)
    }

    @Test func hideWhatTheySay() throws {
        let ticket = try #require(keys.sealed())
        let bytes = try #require(sealedBytes(ticket.ufrag))
        let digest = contents().fingerprint.digest
        let shows = (0...bytes.count - 4).contains { at in
            (0...28).contains { Array(bytes[at..<at + 4]) == Array(digest[$0..<$0 + 4]) }
        }
        #expect(!shows)
    }
}

@Suite struct ForgedTickets {
    let keys = TicketKeys(secrets: [secret])

    @Test func areRefusedWhicheverBitIsFlipped() throws {
        let ticket = try #require(keys.sealed())
        let text = Array(ticket.ufrag.utf8)
        for at in text.indices {
            for bit in 0..<8 {
                var flipped = text
                flipped[at] ^= 1 << UInt8(bit)
                let opened = keys.open(flipped)
                let isOtherVersion = at == 3 && (0x30...0x39).contains(flipped[3])
                #expect(opened == (isOtherVersion ? .unknownVersion : .forged), "byte \(at), bit \(bit)")
                #expect(keys.password(flipped) != ticket.password, "byte \(at), bit \(bit)")
            }
        }
    }

    /// The same below the text: header, nonce, contents and tag.
    @Test func areRefusedWhicheverSealedBitIsFlipped() throws {
        let ticket = try #require(keys.sealed())
        let bytes = try #require(sealedBytes(ticket.ufrag))
        for bit in 0..<8 * bytes.count {
            var flipped = bytes
            flipped[bit / 8] ^= 0x80 >> UInt8(bit % 8)
            let forged = Array("lrc1/".utf8) + Base64.text(flipped)
            #expect(keys.open(forged) == .forged, "bit \(bit)")
            #expect(keys.password(forged) != ticket.password, "bit \(bit)")
        }
    }

    /// The keys of the epoch before open nothing of this one, even though a header could say so.
    @Test func areRefusedWithTheHeaderOfAnotherEpoch() throws {
        let now = try #require(keys.sealed())
        let before = try #require(keys.sealed(at: noon - 3600))
        let mixed = String(before.ufrag.prefix(11)) + String(now.ufrag.dropFirst(11))
        #expect(keys.open(mixed) == .forged)
    }

    @Test func areRefusedAtEveryOtherLength() throws {
        let ticket = try #require(keys.sealed())
        for count in 0..<ticket.ufrag.utf8.count {
            #expect(keys.open(String(ticket.ufrag.prefix(count))) == .forged)
            #expect(keys.password(String(ticket.ufrag.prefix(count))) == nil)
        }
        for more in ["A", "AA", "AAAA", "=", ":x", "\0"] {
            #expect(keys.open(ticket.ufrag + more) == .forged)
            #expect(keys.password(ticket.ufrag + more) == nil)
        }
        #expect(keys.open([UInt8](repeating: 0x41, count: 100_000)) == .forged)
    }

    @Test func areRefusedFromForeignKeys() throws {
        let foreign = TicketKeys(secrets: [otherSecret])
        let ticket = try #require(foreign.sealed())
        #expect(keys.open(ticket.ufrag) == .forged)
        #expect(keys.password(ticket.ufrag) == nil)
        // With this server's secret named in the header it has a password, but not the one its maker knows.
        let own = try #require(keys.sealed())
        let renamed = String(own.ufrag.prefix(13)) + String(ticket.ufrag.dropFirst(13))
        #expect(keys.open(renamed) == .forged)
        let password = try #require(keys.password(renamed))
        #expect(password != ticket.password)
    }

    /// One bit of difference in a secret changes everything.
    @Test func areRefusedFromSimilarSecrets() throws {
        let ticket = try #require(keys.sealed())
        for bit in 0..<secret.count * 8 {
            var similar = secret
            similar[bit / 8] ^= 1 << UInt8(bit % 8)
            #expect(TicketKeys(secrets: [similar]).open(ticket.ufrag) == .forged)
        }
    }

    @Test func areRefusedWithoutASecret() throws {
        let none = TicketKeys(secrets: [])
        let ticket = try #require(keys.sealed())
        #expect(none.sealed() == nil)
        #expect(none.open(ticket.ufrag) == .forged)
        #expect(none.password(ticket.ufrag) == nil)
    }

    @Test func areToldFromOtherVersions() throws {
        let ticket = try #require(keys.sealed())
        for digit in "023456789" {
            let other = "lrc\(digit)/" + ticket.ufrag.dropFirst(5)
            #expect(isTicket(other))
            #expect(keys.open(other) == .unknownVersion)
            #expect(keys.password(other) == nil)
        }
        #expect(keys.open("lrc2/short") == .unknownVersion)
    }

    /// A newer library with the same secret may say things this one does not understand: its tickets have a password, so
    /// they can be refused with a signed error.
    @Test func areToldFromThoseOfANewerLibrary() throws {
        var random = SeededGenerator(seed: 3)
        var plaintext = try #require(contents().encoded())
        #expect(plaintext.count == TicketContents.byteCount)
        plaintext[49] |= 2
        let ticket = try #require(keys.seal(plaintext: plaintext, wallClock: noon, using: &random))
        #expect(keys.open(ticket.ufrag) == .unknownVersion)
        #expect(keys.password(ticket.ufrag) == ticket.password)
    }

    @Test func doNotLookLikeTickets() {
        #expect(isTicket("lrc1/AAAAA"))
        #expect(isTicket("lrc9/AAAAA"))
        for text in ["", "lrc1/", "lrc1/AAAA", "lrc1AAAAAA", "lrcX/AAAAA", "Lrc1/AAAAA", "xlrc1/AAAAA", "lrc/AAAAAA"] {
            #expect(!isTicket(text), "\(text)")
        }
    }
}

@Suite struct TicketTimes {
    let keys = TicketKeys(secrets: [secret])

    @Test func endAtTheSecond() throws {
        let sealed = contents(lifetime: 100)
        let ticket = try #require(keys.sealed(sealed))
        #expect(keys.open(ticket.ufrag, at: noon + 99) == .contents(sealed))
        #expect(keys.open(ticket.ufrag, at: noon + 100) == .expired(sealed))
        // The refusal can be signed.
        #expect(keys.password(ticket.ufrag, at: noon + 100) == ticket.password)
    }

    /// Keys of an epoch open for the longest life a ticket can have, and tell an expired one for as long again.
    @Test func overlapForAWholeLifetime() throws {
        let sealed = contents(lifetime: 7 * 86_400)
        let ticket = try #require(keys.sealed(sealed))
        for hour in 0..<7 * 24 {
            #expect(keys.open(ticket.ufrag, at: noon + Int64(hour) * 3600) == .contents(sealed))
        }
        #expect(keys.open(ticket.ufrag, at: noon + 7 * 86_400) == .expired(sealed))
        #expect(keys.open(ticket.ufrag, at: noon + 14 * 86_400) == .expired(sealed))
        #expect(keys.open(ticket.ufrag, at: noon + 14 * 86_400 + 3600) == .forged)
        #expect(keys.password(ticket.ufrag, at: noon + 14 * 86_400 + 3600) == nil)
    }

    @Test func sealWithNewKeysEachEpoch() throws {
        let now = noon - noon % 3600
        let first = try #require(keys.sealed(at: now))
        let last = try #require(keys.sealed(at: now + 3599))
        let next = try #require(keys.sealed(at: now + 3600))
        #expect(keys.derivations == 2)
        // The epoch is in the first eight characters after the prefix.
        #expect(first.ufrag.prefix(10) == last.ufrag.prefix(10))
        #expect(first.ufrag.prefix(11) != next.ufrag.prefix(11))
    }

    /// Another server's clock may be a little ahead; a ticket of the day after tomorrow is made up.
    @Test func mayComeFromAClockThatIsAhead() throws {
        let now = noon - noon % 3600
        let sealed = contents(at: now)
        let ahead = try #require(keys.sealed(sealed, at: now + 3600))
        #expect(keys.open(ahead.ufrag, at: now) == .contents(sealed))
        let farAhead = try #require(keys.sealed(sealed, at: now + 7200))
        #expect(keys.open(farAhead.ufrag, at: now) == .forged)
        #expect(keys.password(farAhead.ufrag, at: now) == nil)
    }

    @Test func areNotIssuedForTooLongOrTooLate() {
        let lifetimes: [Int64] = [0, -1, 7 * 86_400 + 1, Int64.max - noon, -noon - 1]
        for lifetime in lifetimes {
            #expect(keys.sealed(contents(lifetime: lifetime)) == nil, "\(lifetime)")
        }
        #expect(keys.sealed(contents(lifetime: 1)) != nil)
        #expect(keys.sealed(contents(lifetime: 7 * 86_400)) != nil)
        // 32 bits of seconds.
        let late = Int64(UInt32.max) - 10
        #expect(keys.sealed(contents(lifetime: 10, at: late), at: late) != nil)
        #expect(keys.sealed(contents(lifetime: 11, at: late), at: late) == nil)
    }

    @Test func areNotIssuedForOtherHashes() {
        for size in [48, 64] {
            var other = contents()
            other.fingerprint = ClientFingerprint(digest: Array(repeating: 1, count: size))!
            #expect(keys.sealed(other) == nil)
        }
    }

    @Test func surviveAbsurdClocks() throws {
        let ticket = try #require(keys.sealed())
        let clocks: [Int64] = [.min, -1, 0, 1, .max, .max - 1, Int64(UInt32.max) * 3600 + 7200]
        for clock in clocks {
            #expect(keys.open(ticket.ufrag, at: clock) == .forged)
            #expect(keys.password(ticket.ufrag, at: clock) == nil)
            #expect(keys.sealed(contents(), at: clock) == nil)
        }
        var odd = TicketKeys.Configuration()
        odd.rotation = 0
        odd.maximumLifetime = .max
        let eternal = TicketKeys(secrets: [secret], configuration: odd)
        let sealed = try #require(eternal.sealed())
        #expect(eternal.open(sealed.ufrag) == .contents(contents()))
        odd.rotation = .max
        odd.maximumLifetime = .min
        #expect(TicketKeys(secrets: [secret], configuration: odd).sealed() == nil)
    }
}

@Suite struct TicketSecrets {
    /// Two servers, or one before and after a restart.
    @Test func areSharedByServers() throws {
        let one = TicketKeys(secrets: [secret])
        let two = TicketKeys(secrets: [secret])
        let ticket = try #require(one.sealed())
        #expect(two.open(ticket.ufrag) == .contents(contents()))
        #expect(two.password(ticket.ufrag) == ticket.password)
    }

    @Test func rotateWithOverlap() throws {
        let keys = TicketKeys(secrets: [secret])
        let before = try #require(keys.sealed())
        keys.setSecrets([otherSecret, secret])
        let after = try #require(keys.sealed())
        #expect(keys.open(before.ufrag) == .contents(contents()))
        #expect(keys.password(before.ufrag) == before.password)
        #expect(keys.open(after.ufrag) == .contents(contents()))
        #expect(TicketKeys(secrets: [otherSecret]).open(after.ufrag) == .contents(contents()))
        #expect(TicketKeys(secrets: [secret]).open(after.ufrag) == .forged)
        keys.setSecrets([otherSecret])
        #expect(keys.open(before.ufrag) == .forged)
        #expect(keys.password(before.ufrag) == nil)
        #expect(keys.open(after.ufrag) == .contents(contents()))
    }

    @Test func areAtMostEight() throws {
        let many = (0..<9).map { [UInt8](repeating: UInt8($0), count: 32) }
        let keys = TicketKeys(secrets: many)
        for (index, secret) in many.enumerated() {
            let ticket = try #require(TicketKeys(secrets: [secret]).sealed())
            #expect((keys.open(ticket.ufrag) == .contents(contents())) == (index < 8))
        }
    }

    @Test func areNotTooShort() {
        #expect(TicketKeys(secrets: [Array(repeating: 1, count: 15), []]).sealed() == nil)
        #expect(TicketKeys(secrets: [Array(repeating: 1, count: 16)]).sealed() != nil)
    }

    /// Two secrets that have the same two bytes of name, found by search.
    @Test func openBesideOneOfTheSameName() throws {
        let cipher = Cipher()
        var known: [UInt16: [UInt8]] = [:]
        var pair: ([UInt8], [UInt8])?
        var random = SeededGenerator(seed: 9)
        while pair == nil {
            let candidate = random.bytes(32)
            let id = try #require(TicketKeys.id(of: candidate, cipher))
            if let other = known[id] { pair = (other, candidate) }
            known[id] = candidate
        }
        let (first, second) = try #require(pair)
        let keys = TicketKeys(secrets: [first, second])
        let ticket = try #require(TicketKeys(secrets: [second]).sealed())
        #expect(keys.open(ticket.ufrag) == .contents(contents()))
        #expect(keys.password(ticket.ufrag) != nil)
    }

    /// Whoever names one epoch after the other in forged tickets makes work, not memory, and the keys in use come back.
    @Test func deriveKeysInFixedMemory() throws {
        let keys = TicketKeys(secrets: [secret, otherSecret])
        let ticket = try #require(keys.sealed())
        var bytes = try #require(sealedBytes(ticket.ufrag))
        let derived = keys.derivations
        for _ in 0..<1000 { _ = keys.open(ticket.ufrag) }
        #expect(keys.derivations == derived)
        let epoch = UInt32(noon / 3600)
        for back in 0..<10_000 {
            bytes.replaceSubrange(0..<4, with: [UInt8](bigEndian: epoch &- UInt32(back)))
            #expect((keys.password(Array("lrc1/".utf8) + Base64.text(bytes)) != nil) == (back <= 14 * 24))
        }
        #expect(keys.derivations <= derived + 14 * 24 + 1)
        #expect(keys.open(ticket.ufrag) == .contents(contents()))
    }
}

extension [UInt8] {
    fileprivate init(bigEndian value: UInt32) {
        self.init()
        append(bigEndian: value)
    }
}

@Suite struct DerivedNumbers {
    /// Computed independently, with HKDF and HMAC of another implementation.
    @Test func areTheSameEverywhere() throws {
        let seeds = try #require(InitDerivation.seeds(password: "0123456789abcdefghijkl", clientUfrag: "Wx+/"))
        #expect(seeds.client == bytes(hex: "de66228ead0d7dff4a17145a2f9ea865e2e57590339281f36565b3f28a2134b0"))
        #expect(seeds.server == bytes(hex: "7ca2085e97a00ae9d622938bf753bc5507d5b822703e26ebe5bdd60f0eeeb86d"))
        var generator = DerivedGenerator(seed: seeds.client)
        let numbers = (0..<6).map { _ in generator.next() }
        #expect(
            numbers == [
                0xCDCE_1B52_2707_7D80, 0x5821_8D8F_F931_25A4, 0x64B3_6632_2164_1A9B, 0xDBCE_0EA6_C7DE_9F24,
                0x20E2_F126_6664_EF59, 0x68F3_F883_3211_625D,
            ])
    }

    @Test func differBySideAndConnection() throws {
        let one = try #require(InitDerivation.seeds(password: "0123456789abcdefghijkl", clientUfrag: "abcd"))
        let two = try #require(InitDerivation.seeds(password: "0123456789abcdefghijkl", clientUfrag: "abce"))
        let three = try #require(InitDerivation.seeds(password: "0123456789abcdefghijkm", clientUfrag: "abcd"))
        #expect(Set([one.client, one.server, two.client, two.server, three.client, three.server]).count == 6)
        #expect(one.client.count == 32 && one.server.count == 32)
    }

    @Test func doNotRepeat() {
        var generator = DerivedGenerator(seed: [1, 2, 3])
        var seen = Set<UInt64>()
        for _ in 0..<10_000 { seen.insert(generator.next()) }
        #expect(seen.count == 10_000)
        // A copy goes its own way from the same place.
        var copy = generator
        let first = generator.next()
        #expect(copy.next() == first)
        #expect(DerivedGenerator(seed: []).first != 0)
    }
}

extension DerivedGenerator {
    fileprivate var first: UInt64 {
        var copy = self
        return copy.next()
    }
}
