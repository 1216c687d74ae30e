import STUN
import Testing
import Wire

@testable import ICE

@Suite struct Refusing {
    private let stranger = address("203.0.113.66", 6666)

    private func answerer(lite: Bool = true) -> (Network, Host) {
        let network = Network(seed: 99)
        let host = network.agent(.controlled, lite: lite, on: [b4])
        host.agent.setRemote(Credentials(ufrag: "peer", password: String(repeating: "p", count: 22))!, isLite: false)
        host.agent.start(now: network.now)
        return (network, host)
    }

    /// Handles one datagram and says what came of it, and what is sent in consequence.
    private func reaction(_ host: Host, _ network: Network, _ bytes: [UInt8]) -> (Disposition, [Datagram]) {
        let disposition = host.agent.handle(Datagram(from: stranger, to: b4, bytes: bytes), network.now)
        return (disposition, host.agent.drain(network.now))
    }

    @Test(arguments: [true, false])
    func strangersGetNoAnswerAndLeaveNoTrace(lite: Bool) {
        let (network, host) = answerer(lite: lite)
        let credentials = host.agent.credentials
        let other = Credentials(ufrag: credentials.ufrag + "x", password: credentials.password)!
        var changed = Checks.make(for: credentials, id: 1)
        changed[30] ^= 1
        let unsigned = Checks.build(.request, 1) { writer, output in
            writer.append(.username, Array("\(credentials.ufrag):peer".utf8).span.bytes, to: &output)
            writer.append(.priority, 1 as UInt32, to: &output)
            writer.finish(nil, to: &output)
        }
        let nameless = Checks.build(.request, 1) { writer, output in
            writer.finish(IntegrityKey(password: credentials.password), to: &output)
        }
        let indication = Checks.build(.indication, 1) { writer, output in writer.finish(nil, to: &output) }
        let response = Checks.build(.success, 1) { writer, output in
            writer.append(.xorMappedAddress, b4, to: &output)
            writer.finish(IntegrityKey(password: credentials.password), to: &output)
        }
        let cases: [([UInt8], Disposition.Reason)] = [
            (Checks.make(for: credentials, id: 1, password: "wrong" + credentials.password), .badIntegrity),
            (Checks.make(for: other, id: 1), .otherUfrag), (changed, .malformed), (unsigned, .badIntegrity),
            (nameless, .otherUfrag), (indication, .unexpected), (response, .unmatched), ([], .notSTUN),
            ([22, 254, 253, 0, 0], .notSTUN), (Array(Checks.make(for: credentials, id: 1).dropLast(4)), .notSTUN),
        ]
        for (bytes, reason) in cases {
            let (disposition, sent) = reaction(host, network, bytes)
            #expect(disposition == .ignored(reason) && sent.isEmpty)
        }
        #expect(host.agent.pairCount == 0 && host.agent.drainEvents().isEmpty && host.agent.selectedPath == nil)
        let counted = host.agent.statistics
        #expect(counted.badIntegrity == 2 && counted.otherUfrag == 2 && counted.malformed == 1)
        #expect(
            counted.notSTUN == 3 && counted.unmatched == 1 && counted.unexpected == 1 && counted.requestsReceived == 0)
    }

    /// RFC 8489 section 6.3.1: 420 with the list, signed.
    @Test func unknownRequiredAttributesAreNamed() {
        let (network, host) = answerer()
        let check = Checks.make(
            for: host.agent.credentials, id: 1, extra: [(0x7777, [1, 2, 3, 4]), (0xC057, [0, 0, 0, 0])])
        let (disposition, sent) = reaction(host, network, check)
        #expect(disposition == .consumed && sent.count == 1 && host.agent.pairCount == 0)
        #expect(Checks.errorCode(sent[0].bytes) == 420)
        #expect(Checks.isAuthentic(sent[0].bytes, host.agent.credentials.password))
    }

    @Test(arguments: [IntegrityAlgorithm.sha1, .sha256])
    func answersAreSignedAsTheRequestWas(algorithm: IntegrityAlgorithm) throws {
        let (network, host) = answerer()
        let check = Checks.make(for: host.agent.credentials, id: 1, algorithm: algorithm)
        let (disposition, sent) = reaction(host, network, check)
        #expect(disposition == .consumed && sent.count == 1)
        #expect(sent[0].from == b4 && sent[0].to == stranger && Checks.xorMapped(sent[0].bytes) == stranger)
        #expect(Checks.isAuthentic(sent[0].bytes, host.agent.credentials.password))
        let answer = sent[0].bytes
        let used = try Message(answer.span.bytes).integrityAlgorithm
        #expect(used == algorithm)
    }

    /// RFC 8445 section 7.3: only our half of USERNAME decides; but another generation's or another
    /// branch's check is no sign of our peer.
    @Test func checksOfAnotherPeerMakeNoPath() {
        let (network, host) = answerer()
        let (disposition, sent) = reaction(
            host, network, Checks.make(for: host.agent.credentials, from: "other", id: 1))
        #expect(disposition == .consumed && sent.count == 1 && host.agent.pairCount == 0)
        #expect(host.agent.drainEvents().isEmpty)
    }

    @Test func answersWaitingToBeSentAreBounded() {
        let (network, host) = answerer()
        for id in 0..<100 as Range<UInt64> {
            let disposition = host.agent.handle(
                Datagram(from: stranger, to: b4, bytes: Checks.make(for: host.agent.credentials, id: id)), network.now)
            #expect(disposition == (id < 64 ? .consumed : .ignored(.overloaded)))
        }
        #expect(host.agent.drain(network.now).count == 64)
    }

    @Test func smallBuffersDropInsteadOfLooping() {
        let (network, host) = answerer(lite: false)
        _ = host.agent.handle(
            Datagram(from: stranger, to: b4, bytes: Checks.make(for: host.agent.credentials, id: 1)), network.now)
        var storage = [UInt8](repeating: 0, count: 40)
        let (transmit, count) = storage.withUnsafeMutableBytes { buffer in
            var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
            let transmit = host.agent.pollTransmit(into: &output, now: network.now)
            return (transmit, output.finalize(for: buffer))
        }
        #expect(transmit == nil && count == 0 && host.agent.statistics.transmitsDropped == 2)
    }

    /// Answers that come from elsewhere, twice, late, unsigned or unfit do not make a pair valid.
    @Test func responsesMustFit() {
        enum Twist: CaseIterable { case source, destination, unsigned, wrongKey, noAddress, unknownAttribute, none }
        for twist in Twist.allCases {
            let network = Network(seed: 4)
            let offerer = network.agent(.controlling, on: [a4])
            let remote = Credentials(using: &network.random)
            offerer.agent.setRemote(remote, isLite: true)
            offerer.agent.addRemoteCandidate(Candidate(kind: .host, address: b4, priority: 1))
            offerer.agent.start(now: network.now)
            let check = offerer.agent.drain(network.now)[0]
            let id = try! Message(check.bytes.span.bytes).transactionID
            let response = [UInt8](unsafeUninitializedCapacity: 1200) { buffer, count in
                let bytes = UnsafeMutableRawBufferPointer(buffer)
                var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
                var writer = MessageWriter(.success, id: id, to: &output)
                if twist != .noAddress { writer.append(.xorMappedAddress, a4, to: &output) }
                if twist == .unknownAttribute { writer.append(AttributeType(rawValue: 0x7000), to: &output) }
                let key = IntegrityKey(password: twist == .wrongKey ? remote.password + "x" : remote.password)
                writer.finish(twist == .unsigned ? nil : key, to: &output)
                count = output.finalize(for: bytes)
            }
            var datagram = Datagram(from: b4, to: a4, bytes: response)
            if twist == .source { datagram.from = stranger }
            if twist == .destination { datagram.to = address("192.0.2.99", 1000) }
            let disposition = offerer.agent.handle(datagram, network.now)
            let expected: Disposition =
                switch twist {
                case .source, .destination: .ignored(.unexpected)
                case .unsigned, .wrongKey: .ignored(.badIntegrity)
                case .noAddress, .unknownAttribute: .ignored(.malformed)
                case .none: .consumed
                }
            #expect(disposition == expected, "\(twist)")
            #expect(
                (offerer.agent.pollEvent() == .verified(Path(local: a4, remote: b4))) == (twist == .none), "\(twist)")
            #expect(offerer.agent.handle(Datagram(from: b4, to: a4, bytes: response), network.now) != .consumed)
        }
    }

    @Test func randomAndMutatedDatagramsDoNoHarm() {
        for seed in 0..<20 as Range<UInt64> {
            let network = Network(seed: seed)
            let offerer = network.agent(.controlling, on: [a4, a6])
            let answerer = network.agent(.controlled, lite: seed % 2 == 0, on: [b4, b6])
            network.introduce(offerer, answerer)
            var seen: [Datagram] = []
            network.filter = { datagram in
                seen.append(datagram)
                return true
            }
            for _ in 0..<50 {
                network.run(for: .milliseconds(200))
                for _ in 0..<20 {
                    var datagram = seen.randomElement(using: &network.random) ?? Datagram(from: a4, to: b4, bytes: [])
                    switch Int.random(in: 0..<4, using: &network.random) {
                    case 0: datagram.bytes = network.random.bytes(Int.random(in: 0...200, using: &network.random))
                    case 1:
                        datagram.bytes = Array(datagram.bytes.prefix(Int.random(in: 0...100, using: &network.random)))
                    case 2: datagram.from = address("203.0.113.5", UInt16.random(in: 1...9, using: &network.random))
                    default:
                        for _ in 0..<3 where !datagram.bytes.isEmpty {
                            let index = datagram.bytes.indices.randomElement(using: &network.random)!
                            datagram.bytes[index] = UInt8(truncatingIfNeeded: network.random.next())
                        }
                    }
                    network.deliver(datagram)
                }
            }
            network.run(for: .seconds(5))
            #expect(offerer.agent.selectedPath == Path(local: a6, remote: b6), "seed \(seed)")
            #expect(answerer.agent.selectedPath == Path(local: b6, remote: a6), "seed \(seed)")
            #expect(
                offerer.failures.isEmpty && answerer.failures.isEmpty && answerer.agent.pairCount <= 20, "seed \(seed)")
        }
    }
}
