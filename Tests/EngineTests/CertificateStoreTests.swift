import DTLS
import Glibc
import Storage
import Testing
import Wire

@testable import Engine

private let wallClock: Int64 = 1_800_000_000
private let day: Int64 = 86_400
private let policy = CertificateStore.Policy()

private func open(_ directory: Directory, at time: Int64 = wallClock, _ policy: CertificateStore.Policy = policy)
    throws -> (store: CertificateStore, notes: CertificateStore.Notes)
{
    try CertificateStore.open(path: directory.certificate, policy: policy, wallClock: time)
}

private func fingerprints(_ set: CertificateSet) -> [Fingerprint] {
    set.certificates.map { $0.fingerprint(.sha256) }
}

extension Directory {
    fileprivate var certificate: String { path + "/certificate.pem" }
    fileprivate var previous: String { certificate + ".previous" }

    /// What its files hold now, as another process would find it.
    fileprivate func copied() -> Directory {
        let copy = Directory()
        for name in names { copy.write(read(name), to: name) }
        return copy
    }

    fileprivate func read(_ name: String) -> String {
        let descriptor = Glibc.open(path + "/" + name, O_RDONLY)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}

@Suite struct CertificateStores {
    private let directory = Directory()

    private func rotated(_ store: CertificateStore, at time: Int64) throws -> CertificateSet {
        try store.rotate(wallClock: time)
        return store.set
    }

    // MARK: Replacing

    @Test func keepTheSameCertificate() throws {
        let made = try open(directory)
        #expect(made.notes.map(\.1) == ["[CERTIFICATE] Action=create Storage=file"])
        let loaded = try open(directory, at: wallClock + 5 * day)
        #expect(fingerprints(loaded.store.set) == fingerprints(made.store.set))
        #expect(loaded.notes.map(\.1) == ["[CERTIFICATE] Action=load AgeDays=5 Previous=0"])
        #expect(directory.names == ["certificate.pem"])
    }

    @Test(arguments: [true, false]) func keepTheOneBefore(onDisk: Bool) throws {
        let path = onDisk ? directory.certificate : nil
        let (store, _) = try CertificateStore.open(path: path, policy: policy, wallClock: wallClock)
        let first = try #require(fingerprints(store.set).first)
        var changes: [CertificateChange] = []
        try store.rotate(wallClock: wallClock + 10) { changes.append($0) }
        let now = fingerprints(store.set)
        #expect(now.count == 2 && now[1] == first && now[0] != first)
        #expect(changes.count == 1 && changes[0].isRotation && fingerprints(changes[0].set) == now)
        let storage = onDisk ? "file" : "memory"
        #expect(changes.first?.notes.map(\.1) == ["[CERTIFICATE] Action=rotate Storage=\(storage) Previous=1"])
        #expect(directory.names.sorted() == (onDisk ? ["certificate.pem", "certificate.pem.previous"] : []))
        // After a restart both are there.
        if onDisk { #expect(fingerprints(try open(directory, at: wallClock + 20).store.set) == now) }
    }

    @Test func keepTwoAtMost() throws {
        let (store, _) = try open(directory)
        var all = fingerprints(store.set)
        for round in 1...5 {
            all.insert(try #require(fingerprints(try rotated(store, at: wallClock + Int64(round))).first), at: 0)
            #expect(fingerprints(store.set) == Array(all.prefix(3)))
            #expect(fingerprints(try open(directory, at: wallClock + 5).store.set) == Array(all.prefix(3)))
        }
    }

    @Test func tellCertificatesApartByOneByte() throws {
        let (store, _) = try CertificateStore.open(path: nil, policy: policy, wallClock: wallClock)
        for _ in 1...400 {
            let before = fingerprints(store.set)
            let set = try rotated(store, at: wallClock)
            let identifiers = set.certificates.map(\.identifier)
            #expect(Set(identifiers).count == identifiers.count && fingerprints(set).dropFirst() == before.prefix(2))
            for context in set.all {
                #expect(set.context(identifiedBy: context.certificate.identifier) === context)
            }
        }
        let taken = Set(store.set.certificates.map(\.identifier))
        let free = try #require((0...255).map(UInt8.init).first { !taken.contains($0) })
        #expect(store.set.context(identifiedBy: free) == nil)
    }

    @Test func areForTheOwnerOnly() throws {
        let (store, _) = try open(directory)
        umask(0)
        defer { umask(0o022) }
        try store.rotate(wallClock: wallClock)
        for path in [directory.certificate, directory.previous] {
            var status = stat()
            #expect(stat(path, &status) == 0 && status.st_mode & 0o7777 == 0o600, "\(path)")
        }
        chmod(directory.previous, 0o644)
        let notes = try open(directory).notes
        #expect(notes.contains { $0.0 == .warning && $0.1.contains("certificate.pem.previous can be read by other") })
    }

    // MARK: Time

    @Test func replaceWhatIsOldEnough() throws {
        let (store, _) = try open(directory)
        let first = fingerprints(store.set)
        #expect(store.maintain(wallClock: wallClock + 30 * day - 1) == nil)
        #expect(fingerprints(store.set) == first)
        let change = try #require(store.maintain(wallClock: wallClock + 30 * day))
        #expect(change.isRotation && fingerprints(change.set).dropFirst() == first[...])
        #expect(store.maintain(wallClock: wallClock + 30 * day) == nil)
    }

    @Test func replaceWhatIsOldEnoughAtTheStart() throws {
        let first = fingerprints(try open(directory).store.set)
        let (store, notes) = try open(directory, at: wallClock + 31 * day)
        #expect(fingerprints(store.set).dropFirst() == first[...])
        #expect(
            notes.map(\.1) == [
                "[CERTIFICATE] Action=load AgeDays=31 Previous=0",
                "[CERTIFICATE] Action=rotate Storage=file Previous=1",
            ])
    }

    @Test func neverReplaceWithoutALifetime() throws {
        var forever = policy
        forever.lifetime = nil
        let (store, _) = try open(directory, forever)
        #expect(store.maintain(wallClock: wallClock + 40 * 365 * day) == nil)
        #expect(
            fingerprints(try open(directory, at: wallClock + 40 * 365 * day, forever).store.set)
                == fingerprints(store.set))
        // Unless its validity is over.
        #expect(store.maintain(wallClock: wallClock + 50 * 365 * day)?.isRotation == true)
    }

    @Test func outliveALongLifetime() throws {
        var long = policy
        long.lifetime = .seconds(1000 * day)
        let (store, _) = try open(directory, long)
        #expect(store.maintain(wallClock: wallClock + 999 * day) == nil)
        #expect(!store.set.current.certificate.isExpired(wallClock: wallClock + 1001 * day))
    }

    @Test func giveUpThePreviousInTime() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 100)
        #expect(store.maintain(wallClock: wallClock + 100 + 4199) == nil)
        #expect(store.nextCheck(wallClock: wallClock + 100 + 4190) == .seconds(10))
        let change = try #require(store.maintain(wallClock: wallClock + 100 + 4200))
        #expect(!change.isRotation && change.set.previous.isEmpty && store.set.previous.isEmpty)
        #expect(change.notes.map(\.1) == ["[CERTIFICATE] Action=retire Previous=0"])
        #expect(directory.names == ["certificate.pem"])
        #expect(store.maintain(wallClock: wallClock + 100 + 4200) == nil)
    }

    @Test func giveUpOneAfterTheOther() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 100)
        try store.rotate(wallClock: wallClock + 1100)
        let all = fingerprints(store.set)
        #expect(store.maintain(wallClock: wallClock + 4300) != nil)
        #expect(fingerprints(store.set) == Array(all.prefix(2)))
        #expect(fingerprints(try open(directory, at: wallClock + 4300).store.set) == Array(all.prefix(2)))
        #expect(store.maintain(wallClock: wallClock + 5300) != nil)
        #expect(fingerprints(store.set) == Array(all.prefix(1)))
    }

    @Test func leaveOutWhatIsOverWhenLoaded() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 100)
        #expect(try open(directory, at: wallClock + 4299).store.set.previous.count == 1)
        let (later, _) = try open(directory, at: wallClock + 4300)
        #expect(later.set.previous.isEmpty)
    }

    @Test(arguments: [true, false]) func lookAgainInTime(onDisk: Bool) throws {
        let (store, _) = try CertificateStore.open(
            path: onDisk ? directory.certificate : nil, policy: policy, wallClock: wallClock)
        // The files of others may change; alone there is nothing to see.
        #expect(store.nextCheck(wallClock: wallClock) == .seconds(onDisk ? 60 : 3600))
        #expect(store.nextCheck(wallClock: wallClock + 30 * day - 7) == .seconds(7))
        // After a failure not at once; and clocks may be anywhere.
        for time in [wallClock + 30 * day, wallClock + 900 * day, 0, .max, .min] {
            let wait = store.nextCheck(wallClock: time)
            #expect(wait > .zero && wait <= .seconds(3600))
        }
    }

    @Test func surviveAnyClock() throws {
        for time in [Int64.min, -1, 0, 1, .max / 2, .max] {
            let place = Directory()
            guard let opened = try? open(place, at: time) else { continue }
            _ = opened.store.maintain(wallClock: wallClock)
            #expect(throws: Never.self) { try opened.store.rotate(wallClock: wallClock) }
        }
        // A clock that goes back keeps the certificate.
        let (store, _) = try open(directory)
        #expect(store.maintain(wallClock: 0) == nil)
        #expect(fingerprints(try open(directory, at: 0).store.set) == fingerprints(store.set))
    }

    @Test func replaceWhatIsExpired() throws {
        try CertificateFile(path: directory.certificate).store(
            try Certificate.make(wallClock: wallClock, lifetime: .seconds(10)))
        let (store, notes) = try open(directory, at: wallClock + 10)
        #expect(notes.count == 1 && notes[0].0 == .warning)
        #expect(notes.first?.1 == "[CERTIFICATE] Action=replace-expired Storage=file")
        #expect(fingerprints(try open(directory, at: wallClock + 20).store.set) == fingerprints(store.set))
    }

    // MARK: Crashes and damage

    /// The process ends after the first of the two writes.
    @Test func loseNothingBetweenTheWrites() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 1)
        try store.rotate(wallClock: wallClock + 2)
        let before = fingerprints(store.set)
        let current = directory.read("certificate.pem")
        try store.rotate(wallClock: wallClock + 3)
        let after = fingerprints(store.set)
        // The second write has not happened.
        let crashed = directory.copied()
        crashed.write(current, to: "certificate.pem")
        #expect(fingerprints(try open(crashed, at: wallClock + 4).store.set) == before)
        // Nor has anything of it; and both have.
        #expect(fingerprints(try open(directory, at: wallClock + 4).store.set) == after)
        // The next replacement after the crash.
        let (again, _) = try open(crashed, at: wallClock + 4)
        try again.rotate(wallClock: wallClock + 5)
        #expect(fingerprints(again.set).dropFirst() == before.prefix(2))
        #expect(fingerprints(try open(crashed, at: wallClock + 6).store.set) == fingerprints(again.set))
    }

    /// As some file systems leave files that were being written when the power went.
    @Test func surviveDamageToThePrevious() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 1)
        try store.rotate(wallClock: wallClock + 2)
        let all = fingerprints(store.set)
        let text = directory.read("certificate.pem.previous")
        for cut in stride(from: 0, through: text.utf8.count, by: 37) {
            directory.write(String(decoding: text.utf8.prefix(cut), as: UTF8.self), to: "certificate.pem.previous")
            let (damaged, notes) = try open(directory, at: wallClock + 3)
            let found = fingerprints(damaged.set)
            #expect(found == Array(all.prefix(found.count)), "cut at \(cut)")
            #expect(
                notes.filter { $0.0 == .warning }.allSatisfy { $0.1.hasPrefix("[CERTIFICATE] Not all of the previous") }
            )
        }
        directory.write(text.replacing("A", with: "B"), to: "certificate.pem.previous")
        #expect(throws: Never.self) { try open(directory, at: wallClock + 3) }
        directory.write(String(repeating: "-----END CERTIFICATE-----\n", count: 3000), to: "certificate.pem.previous")
        #expect(try open(directory, at: wallClock + 3).notes.contains { $0.0 == .warning })
        // The first one is damaged: the second is still there.
        directory.write("x" + text.dropFirst(), to: "certificate.pem.previous")
        #expect(fingerprints(try open(directory, at: wallClock + 3).store.set) == [all[0], all[2]])
        unlink(directory.previous)
        mkdir(directory.previous, 0o700)
        defer { rmdir(directory.previous) }
        let (without, notes) = try open(directory, at: wallClock + 3)
        #expect(fingerprints(without.set) == [all[0]])
        #expect(notes.contains { $0.0 == .warning && $0.1.contains("The previous certificates are lost") })
    }

    @Test func replaceWhatIsGone() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 1)
        let all = fingerprints(store.set)
        unlink(directory.certificate)
        let (found, _) = try open(directory, at: wallClock + 2)
        #expect(fingerprints(found.set).dropFirst() == all[1...])
        #expect(!all.contains(fingerprints(found.set)[0]))
    }

    @Test func refuseWhatIsDamaged() throws {
        _ = try open(directory)
        let text = directory.read("certificate.pem")
        directory.write(String(text.prefix(100)), to: "certificate.pem")
        #expect(performing { () throws(Failure) in try opened() }?.status == .certificateUnusable)
        // It is the host's to look at: nothing was written.
        #expect(directory.read("certificate.pem") == String(text.prefix(100)))
        #expect(directory.names == ["certificate.pem"])
    }

    private func opened() throws(Failure) {
        _ = try CertificateStore.open(path: directory.certificate, policy: policy, wallClock: wallClock)
    }

    // MARK: Failures

    /// A directory in the place of a file cannot be replaced, not even by the superuser.
    @Test(arguments: [".previous", ""]) func changeNothingWhenTheyCannotBeWritten(_ suffix: String) throws {
        let (store, _) = try open(directory)
        let before = fingerprints(store.set)
        let files = directory.copied()
        unlink(directory.certificate + suffix)
        mkdir(directory.certificate + suffix, 0o700)
        defer { rmdir(directory.certificate + suffix) }
        var changes = 0
        let failure = performing { () throws(Failure) in
            try store.rotate(wallClock: wallClock + 1) { _ in changes += 1 }
        }
        #expect(failure?.status == .storage)
        #expect(changes == 0 && fingerprints(store.set) == before)
        rmdir(directory.certificate + suffix)
        let left = suffix.isEmpty ? [] : files.names
        #expect(directory.names == left)
        for name in left { #expect(directory.read(name) == files.read(name)) }
        // In time: a warning, then again.
        mkdir(directory.certificate + suffix, 0o700)
        let change = try #require(store.maintain(wallClock: wallClock + 31 * day))
        #expect(change.isFailure && !change.isRotation && change.notes.map(\.0) == [.warning])
        #expect(fingerprints(store.set) == before)
        rmdir(directory.certificate + suffix)
        // Not at once, though: an hour later, or when the clock went far back.
        #expect(store.maintain(wallClock: wallClock + 31 * day + 3599) == nil)
        #expect(fingerprints(store.set) == before)
        #expect(store.maintain(wallClock: wallClock + 31 * day + 3600)?.isRotation == true)
    }

    @Test(.enabled(if: geteuid() != 0)) func changeNothingWithoutPermission() throws {
        let (store, _) = try open(directory)
        let before = fingerprints(store.set)
        chmod(directory.path, 0o500)
        defer { chmod(directory.path, 0o700) }
        let failure = performing { () throws(Failure) in try store.rotate(wallClock: wallClock + 1) }
        #expect(failure?.status == .noPermission)
        #expect(fingerprints(store.set) == before && directory.names == ["certificate.pem"])
    }

    @Test func keepTheOldPreviousWhenTheNewOneCannotBeWritten() throws {
        let (store, _) = try open(directory)
        try store.rotate(wallClock: wallClock + 1)
        let previous = directory.read("certificate.pem.previous")
        let current = directory.read("certificate.pem")
        unlink(directory.certificate)
        mkdir(directory.certificate, 0o700)
        #expect(performing { () throws(Failure) in try store.rotate(wallClock: wallClock + 2) } != nil)
        rmdir(directory.certificate)
        directory.write(current, to: "certificate.pem")
        #expect(directory.read("certificate.pem.previous") == previous)
    }

    // MARK: Several engines with one file

    @Test func makeOneCertificateTogether() throws {
        let path = directory.certificate
        let found = Guarded<[Fingerprint]>([])
        concurrently(4) { _ in
            guard let (store, _) = try? CertificateStore.open(path: path, policy: policy, wallClock: wallClock) else {
                return
            }
            found.withLock { $0.append(store.set.current.certificate.fingerprint(.sha256)) }
        }
        #expect(found.withLock { $0.count } == 4 && Set(found.withLock { $0 }).count == 1)
        #expect(directory.names == ["certificate.pem"])
    }

    @Test func takeTheReplacementOfAnother() throws {
        let (one, _) = try open(directory)
        let (other, _) = try open(directory, at: wallClock + 1)
        try one.rotate(wallClock: wallClock + 10)
        #expect(other.isDue(wallClock: wallClock + 20))
        let change = try #require(other.maintain(wallClock: wallClock + 20))
        #expect(change.isRotation && fingerprints(other.set) == fingerprints(one.set))
        #expect(other.maintain(wallClock: wallClock + 21) == nil)
        // Whose time comes first replaces it for both.
        _ = one.maintain(wallClock: wallClock + 31 * day)
        _ = other.maintain(wallClock: wallClock + 31 * day)
        #expect(fingerprints(other.set) == fingerprints(one.set))
        #expect(fingerprints(other.set).count == 2)
        // A forced one keeps what the other made.
        let made = fingerprints(try rotated(one, at: wallClock + 32 * day))[0]
        #expect(fingerprints(try rotated(other, at: wallClock + 32 * day))[1] == made)
    }

    @Test func waitForNobody() throws {
        let (store, _) = try open(directory)
        let before = fingerprints(store.set)
        let lock = try #require(CertificateFile(path: directory.certificate).lock())
        #expect(performing { () throws(Failure) in try store.rotate(wallClock: wallClock) }?.status == .storage)
        #expect(store.maintain(wallClock: wallClock + 31 * day)?.isFailure == true)
        close(lock)
        #expect(fingerprints(store.set) == before)
        // A clock that was wrong does not count.
        #expect(store.maintain(wallClock: wallClock + 30 * day)?.isRotation == true)
    }

    @Test func replaceOneAtATime() throws {
        let (store, _) = try CertificateStore.open(path: nil, policy: policy, wallClock: wallClock)
        let changes = Guarded<[Fingerprint]>([])
        concurrently(4) { _ in
            for _ in 0..<10 {
                try? store.rotate(wallClock: wallClock + 1) { change in
                    changes.withLock { $0.append(change.set.current.certificate.fingerprint(.sha256)) }
                }
                #expect(store.set.previous.count >= 1)
            }
        }
        let all = changes.withLock { $0 }
        #expect(Set(all).count == 40)
        #expect(fingerprints(store.set) == Array(all.suffix(3).reversed()))
    }

    // MARK: Secrets

    @Test func showNothingOfTheirKeys() throws {
        let (store, notes) = try open(directory)
        var change: CertificateChange?
        try store.rotate(wallClock: wallClock + 1) { change = $0 }
        let texts = [directory.read("certificate.pem"), directory.read("certificate.pem.previous")]
        let secret = try store.set.current.certificate.deriveTicketSecret()
        // Lines of the keys' text, and the secret as Swift would print it.
        let secrets = texts.flatMap { $0.split(separator: "\n") }.filter { !$0.hasPrefix("-") }.map(String.init)
        var shown = (notes + (change?.notes ?? [])).map(\.1)
        for subject in [store, store.set, change as Any, store.set.current, store.set.current.certificate] as [Any] {
            var dumped = ""
            dump(subject, to: &dumped)
            shown += [dumped, String(describing: subject), String(reflecting: subject)]
        }
        for text in shown {
            #expect(!secrets.contains { text.contains($0) } && !text.contains("PRIVATE"))
            #expect(!text.contains(secret.prefix(4).map(String.init).joined(separator: ", ")))
        }
    }

    @Test func serveTheCertificatesTheyReplaced() throws {
        let (store, _) = try open(directory)
        let old = store.set.current.certificate
        try store.rotate(wallClock: wallClock + 1)
        let (restarted, _) = try open(directory, at: wallClock + 2)
        for set in [store.set, restarted.set] {
            let context = try #require(set.context(identifiedBy: old.identifier))
            #expect(context !== set.current)
            #expect(try handshake(with: context, expecting: old.fingerprint(.sha256)))
            #expect(try !handshake(with: set.current, expecting: old.fingerprint(.sha256)))
        }
    }

    /// True if a client that expects this fingerprint gets through.
    private func handshake(with context: Context, expecting fingerprint: Fingerprint) throws -> Bool {
        let own = try Certificate.make(wallClock: wallClock)
        let client = try #require(
            try Context(certificate: own).makeTransport(
                role: .client, expectedFingerprints: [fingerprint], mtu: 1200, initialRetransmission: .seconds(1)))
        let server = try #require(
            context.makeTransport(
                role: .server, expectedFingerprints: [own.fingerprint(.sha256)], mtu: 1200,
                initialRetransmission: .seconds(1)))
        let now = Instant(nanoseconds: 1_000_000_000)
        server.start(now: now)
        client.start(now: now)
        var isMoving = true
        while isMoving {
            isMoving = pass(from: client, to: server, now) || pass(from: server, to: client, now)
        }
        return client.state == .connected && server.state == .connected
    }

    private func pass(from sender: any SecureTransport, to receiver: any SecureTransport, _ now: Instant) -> Bool {
        var storage = [UInt8](repeating: 0, count: 2048)
        var sent = false
        let count = storage.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            sent = sender.pollTransmit(into: &output)
            return output.finalize(for: buffer)
        }
        if sent { receiver.receive(storage.span.bytes.extracting(0..<count), now: now) }
        return sent
    }
}

private func performing(_ body: () throws(Failure) -> Void) -> Failure? {
    do throws(Failure) {
        try body()
        return nil
    } catch {
        return error
    }
}

// MARK: - In an engine

@Suite struct EngineCertificates {
    @Test func areReplacedOnDemand() throws {
        let directory = Directory()
        let answerer = try Host {
            $0.certificatePath = directory.certificate
            $0.logLevel = .info
        }
        let offerer = try Host()
        let old = answerer.engine.fingerprint(.sha256)
        let link = try Link.connected(offerer, answerer)
        try answerer.engine.rotateCertificate()
        let new = answerer.engine.fingerprint(.sha256)
        #expect(new != old && new.hasPrefix("sha-256 "))
        #expect(try answerer.next(.certificate).text == new)
        _ = try answerer.next(.log) { $0.text == "[CERTIFICATE] Action=rotate Storage=file Previous=1" }
        // The peer that is up stays so.
        #expect(send(link.channel, [1, 2, 3]) == .ok)
        #expect(try answerer.next(.message).bytes == [1, 2, 3])
        // The next one gets the new certificate.
        var second = Link(offerer, answerer)
        var signaling = Link.Signaling()
        signaling.answer = { answer in
            #expect(answer.contains(new) && !answer.contains(old))
            return answer
        }
        try second.negotiate(signaling)
        try second.open()
        let text = try Prometheus(try answerer.engine.metrics())
        #expect(text.value("reconnect_certificate_rotations_total", ["result": "success"]) == 1)
    }

    @Test func stayWhenTheyCannotBeReplaced() throws {
        let directory = Directory()
        let host = try Host { $0.certificatePath = directory.certificate }
        let old = host.engine.fingerprint(.sha256)
        mkdir(directory.previous, 0o700)
        defer { rmdir(directory.previous) }
        #expect(performing { () throws(Failure) in try host.engine.rotateCertificate() }?.status == .storage)
        #expect(host.engine.fingerprint(.sha256) == old)
        #expect(try !host.drained().contains { $0.kind == .certificate })
        let text = try Prometheus(try host.engine.metrics())
        #expect(text.value("reconnect_certificate_rotations_total", ["result": "failure"]) == 1)
    }

    @Test func areReplacedInTime() throws {
        let host = try Host { $0.certificateLifetime = .seconds(1) }
        let old = host.engine.fingerprint(.sha256)
        let new = try host.next(.certificate).text
        #expect(new != old)
    }

    @Test func areGoneWithTheEngine() throws {
        let host = try Host()
        _ = host.engine.destroy()
        #expect(performing { () throws(Failure) in try host.engine.rotateCertificate() }?.status == .invalidHandle)
    }
}
