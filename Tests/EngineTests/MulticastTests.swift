import CSystem
import Testing
import Wire

@testable import Engine

/// A DNS message written by hand.
private struct Written {
    var bytes: [UInt8]

    init(id: UInt16 = 0, flags: UInt16 = 0x8400, questions: UInt16 = 0, answers: UInt16 = 0, additional: UInt16 = 0) {
        bytes = []
        for value in [id, flags, questions, answers, 0, additional] { add(value) }
    }

    mutating func add(_ value: UInt16) { bytes += [UInt8(value >> 8), UInt8(value & 255)] }

    mutating func name(_ name: String, pointer: UInt16? = nil) {
        for label in name.split(separator: ".") { bytes += [UInt8(label.utf8.count)] + Array(label.utf8) }
        if let pointer { add(0xC000 | pointer) } else { bytes.append(0) }
    }

    mutating func question(_ name: String, type: UInt16 = 1) {
        self.name(name)
        add(type)
        add(1)
    }

    mutating func tail(_ type: UInt16, _ data: [UInt8], kind: UInt16 = 0x8001, seconds: UInt16 = 120) {
        for value in [type, kind, 0, seconds, UInt16(data.count)] { add(value) }
        bytes += data
    }

    mutating func address(_ name: String, _ text: String, seconds: UInt16 = 120) {
        self.name(name)
        tail(text.contains(":") ? 28 : 1, octets(text), seconds: seconds)
    }
}

private func octets(_ text: String) -> [UInt8] {
    let ip = IPAddress(text)!
    if ip.isIPv4 { return (0..<4).map { UInt8(truncatingIfNeeded: ip.v4Bits >> (24 - 8 * $0)) } }
    return (0..<16).map { UInt8(truncatingIfNeeded: ($0 < 8 ? ip.high : ip.low) >> UInt64(56 - 8 * ($0 % 8))) }
}

/// A response with one address.
private func response(_ name: String, _ ip: String, id: UInt16 = 0, seconds: UInt16 = 120) -> [UInt8] {
    var message = Written(id: id, answers: 1)
    message.address(name, ip, seconds: seconds)
    return message.bytes
}

private func read(_ bytes: [UInt8]) -> MulticastMessage.Contents { MulticastMessage.read(bytes.span.bytes) }

private func records(_ bytes: [UInt8]) -> [String]? {
    guard case .response(_, let records) = read(bytes) else { return nil }
    return records.map { "\($0.name) \($0.address)" }
}

@Suite struct MulticastMessages {
    @Test func askOneQuestionEach() {
        var output = [UInt8](repeating: 0, count: 100)
        let count = output.withUnsafeMutableBytes { buffer in
            var span = OutputRawSpan(buffer: buffer, initializedCount: 0)
            let isWritten = MulticastMessage.writeQuestion("ab-1.local", .aaaa, id: 0x1234, to: &span)
            #expect(isWritten)
            return span.finalize(for: buffer)
        }
        #expect(
            Array(output.prefix(count)) == [0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4] + Array("ab-1".utf8) + [5]
                + Array("local".utf8) + [0, 0, 28, 0, 1])
        #expect(read(Array(output.prefix(count))) == .other)
    }

    @Test func tellAddresses() throws {
        var message = Written(id: 7, answers: 2, additional: 2)
        message.address("A-1.Local", "192.0.2.1")
        message.name("a-1.local")
        message.tail(16, Array("text".utf8))
        message.address("a-1.local", "2001:db8::1")
        message.name("other.local")
        message.tail(1, [10, 0, 0, 1], kind: 3)
        #expect(records(message.bytes) == ["a-1.local 192.0.2.1", "a-1.local 2001:db8::1"])
        guard case .response(let id, let records) = read(message.bytes) else { return #expect(Bool(false)) }
        #expect(id == 7 && records[0].lifetime == .seconds(120))
    }

    /// RFC 1035 section 4.1.4: F.ISI.ARPA at 20, FOO.F.ISI.ARPA by a pointer to it, ARPA by a pointer into it.
    @Test func compressTheirNames() {
        var message = Written(questions: 1, answers: 3)
        message.question("f.isi.arpa")
        message.name("foo", pointer: 12)
        message.tail(1, [192, 0, 2, 1])
        message.name("", pointer: 18)
        message.tail(1, [192, 0, 2, 2])
        message.name("x", pointer: 28)
        message.tail(1, [192, 0, 2, 3])
        #expect(records(message.bytes) == ["foo.f.isi.arpa 192.0.2.1", "arpa 192.0.2.2", "x.foo.f.isi.arpa 192.0.2.3"])
    }

    @Test func neverLoop() {
        for pointer in [12, 13, 14, 28, 200, 0, 11] as [UInt16] {
            var message = Written(answers: 1)
            message.name("a", pointer: pointer)
            message.tail(1, [192, 0, 2, 1])
            #expect(read(message.bytes) == .malformed, "\(pointer)")
        }
        // Two that lead to each other.
        var message = Written(questions: 1, answers: 1)
        message.bytes += [0xC0, 16, 0, 1, 0xC0, 12, 0, 1]
        #expect(read(message.bytes) == .malformed)
    }

    @Test func haveNamesOfALength() {
        let long = (0..<4).map { _ in String(repeating: "a", count: 62) }.joined(separator: ".")
        #expect(records(response(long, "192.0.2.1"))?.count == 1)
        #expect(read(response(long + ".abc", "192.0.2.1")) == .malformed)
        // Pointers do not make it longer than that.
        var message = Written(questions: 1, answers: 1)
        message.question(long)
        message.name("abc", pointer: 12)
        message.tail(1, [192, 0, 2, 1])
        #expect(read(message.bytes) == .malformed)
        var label = Written(answers: 1)
        label.bytes += [64] + [UInt8](repeating: 97, count: 64) + [0]
        label.tail(1, [192, 0, 2, 1])
        #expect(read(label.bytes) == .malformed)
    }

    @Test func areNotMistakenForOtherNames() {
        // One label "a.local", and one with a letter that nobody asks for.
        var message = Written(answers: 2)
        message.bytes += [7] + Array("a.local".utf8) + [0]
        message.tail(1, [192, 0, 2, 1])
        message.bytes += [3, 97, 0, 98, 5] + Array("local".utf8) + [0]
        message.tail(1, [192, 0, 2, 1])
        #expect(records(message.bytes) == [])
    }

    @Test func areMalformedAsAWhole() {
        let good = response("a.local", "192.0.2.1") + [1, 2, 3]
        #expect(records(good)?.count == 1, "what follows is nobody's")
        for count in 0..<good.count - 3 { #expect(read(Array(good.prefix(count))) == .malformed, "\(count)") }
        for data in [[], [1, 2, 3], [1, 2, 3, 4, 5]] as [[UInt8]] {
            var message = Written(answers: 1)
            message.name("a.local")
            message.tail(1, data)
            #expect(read(message.bytes) == .malformed)
        }
        var many = Written(answers: 65_535, additional: 65_535)
        many.address("a.local", "192.0.2.1")
        #expect(read(many.bytes) == .malformed)
    }

    @Test(arguments: [0x0400, 0x8800, 0x8003, 0x8001, 0xC000] as [UInt16])
    func areIgnoredIfTheyAreNoPlainResponses(_ flags: UInt16) {
        var message = Written(flags: flags, answers: 1)
        message.address("a.local", "192.0.2.1")
        #expect(read(message.bytes) == .other)
    }

    @Test func surviveAnyChange() {
        var random = SeededGenerator(seed: 0x6762)
        var message = Written(questions: 1, answers: 2, additional: 1)
        message.question("host.local")
        message.name("", pointer: 12)
        message.tail(1, [192, 0, 2, 1])
        message.name("b", pointer: 17)
        message.tail(28, octets("2001:db8::1"))
        message.address("c.local", "192.0.2.9")
        for _ in 0..<20_000 {
            var bytes = message.bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = [0, 0xC0, 12, 255, 1, 63].randomElement(
                    using: &random)!
            }
            _ = read(Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random))))
        }
    }

    @Test func nameHosts() {
        let name = "1f4712db-ea17-4bcf-a596-105139dfd8bf.local"
        #expect(MulticastMessage.name(name.uppercased()) == name && MulticastMessage.name(name + ".") == name)
        #expect(MulticastMessage.name("a.b_c.local") == "a.b_c.local")
        for text in [
            "", "local", ".local", "a..local", "a.local..", "example.org", "a.local.org", "a.locals", "a b.local",
            "a/b.local", "\u{E4}.local", "a\u{0}.local", "a\\.local", "*.local", "a.local:80", "[a].local", "@.local",
            String(repeating: "a", count: 64) + ".local", String(repeating: "a.", count: 126) + "local",
            "\u{212A}.local",
        ] { #expect(MulticastMessage.name(text) == nil, "\(text)") }
        let longest = (0..<4).map { _ in String(repeating: "a", count: 61) }.joined(separator: ".") + ".local"
        #expect(longest.utf8.count == 253 && MulticastMessage.name(longest) == longest)
        #expect(MulticastMessage.name("a" + longest) == nil)
    }
}

/// Questions in virtual time.
private final class Asker {
    let questions: MulticastQuestions
    var now = Instant(nanoseconds: 5_000_000_000)
    var sent: [(at: Instant, bytes: [UInt8])] = []
    var events: [MulticastQuestions.Event] = []

    init(_ adjust: (inout MulticastQuestions.Settings) -> Void = { _ in }) {
        var settings = MulticastQuestions.Settings()
        adjust(&settings)
        questions = MulticastQuestions(settings, random: SeededGenerator(seed: 3))
    }

    func ask(_ name: String) -> MulticastQuestions.Reply {
        defer { drain() }
        return questions.ask(name, now: now)
    }

    func hear(_ bytes: [UInt8], port: UInt16 = 5353, isToGroup: Bool = true) {
        let from = SocketAddress(ip: IPAddress("192.0.2.50")!, port: port)
        questions.handle(bytes.span.bytes, from: from, isToGroup: isToGroup, now: now)
        drain()
    }

    func run(until end: Instant) {
        while let due = questions.nextTimeout, due <= end {
            now = max(now, due)
            questions.handleTimeout(now: now)
            drain()
        }
        now = end
    }

    private func drain() {
        while true {
            var room = [UInt8](repeating: 0, count: 512)
            var isThere = false
            let count = room.withUnsafeMutableBytes { buffer in
                var output = OutputRawSpan(buffer: buffer, initializedCount: 0)
                isThere = questions.pollTransmit(into: &output)
                return output.finalize(for: buffer)
            }
            guard isThere else { break }
            sent.append((now, Array(room.prefix(count))))
        }
        while let event = questions.pollEvent() { events.append(event) }
    }
}

@Suite struct MulticastAsking {
    private let start = Instant(nanoseconds: 5_000_000_000)

    @Test func isDoneOncePerNameHoweverManyAsk() {
        let asker = Asker()
        for text in ["a.local", "A.local", "a.LOCAL."] { #expect(asker.ask(text) == .asked) }
        #expect(asker.sent.count == 2, "an A and an AAAA")
        #expect(asker.sent[0].bytes.prefix(2) == asker.sent[1].bytes.prefix(2))
        asker.hear(response("A.local", "192.0.2.7"))
        #expect(asker.events == [.init(name: "a.local", addresses: [IPAddress("192.0.2.7")!])])
        #expect(asker.questions.isIdle && asker.questions.nextTimeout == nil)
        #expect(asker.ask("a.local") == .known([IPAddress("192.0.2.7")!]))
        // The second answer is nobody's.
        asker.hear(response("a.local", "192.0.2.8"))
        #expect(asker.events.count == 1 && asker.questions.statistics.ignored == 1)
    }

    @Test func isRepeatedAndGivenUp() {
        let asker = Asker()
        #expect(asker.ask("a.local") == .asked)
        asker.run(until: start + .seconds(60))
        #expect(asker.sent.map { ($0.at - start).milliseconds } == [0, 0, 1000, 1000, 3000, 3000])
        #expect(asker.events == [.init(name: "a.local", addresses: [])] && asker.questions.isIdle)
        #expect(asker.questions.statistics.failed == 1 && asker.questions.statistics.questionsSent == 6)
        // And may be asked again.
        #expect(asker.ask("a.local") == .asked)
    }

    @Test func givesUpAfterFiveSecondsAndNotBefore() {
        let asker = Asker()
        _ = asker.ask("a.local")
        asker.run(until: start + .seconds(5) - .nanoseconds(1))
        #expect(asker.events.isEmpty)
        asker.run(until: start + .seconds(5))
        #expect(asker.events.count == 1)
    }

    @Test func remembersForAMinuteAtMost() {
        let asker = Asker()
        _ = asker.ask("a.local")
        _ = asker.ask("b.local")
        asker.hear(response("a.local", "192.0.2.7", seconds: 4500))
        asker.hear(response("b.local", "192.0.2.8", seconds: 10))
        asker.run(until: start + .seconds(9))
        #expect(asker.ask("b.local") == .known([IPAddress("192.0.2.8")!]))
        asker.run(until: start + .seconds(10))
        #expect(asker.ask("b.local") == .asked)
        asker.run(until: start + .seconds(59))
        #expect(asker.ask("a.local") == .known([IPAddress("192.0.2.7")!]))
        asker.run(until: start + .seconds(60))
        #expect(asker.ask("a.local") == .asked)
    }

    @Test func takesAllAddressesOfAMessage() {
        let asker = Asker { $0.maximumAddresses = 3 }
        _ = asker.ask("a.local")
        var message = Written(answers: 4, additional: 4)
        for ip in ["192.0.2.1", "192.0.2.1", "0.0.0.0", "224.0.0.1"] { message.address("a.local", ip) }
        for ip in ["fe80::1", "2001:db8::1", "192.0.2.3", "192.0.2.4"] { message.address("a.local", ip) }
        asker.hear(message.bytes)
        #expect(asker.events.first?.addresses.map(\.description) == ["192.0.2.1", "2001:db8::1", "192.0.2.3"])
    }

    @Test func believesOnlyWhatItAskedFor() {
        let asker = Asker()
        _ = asker.ask("a.local")
        asker.hear(response("b.local", "192.0.2.1"))
        asker.hear(response("a.local", "192.0.2.1"), port: 5354)
        asker.hear(response("a.local", "192.0.2.1", seconds: 0))
        asker.hear(response("a.local", "0.0.0.0"))
        // To us alone, with a wrong number.
        let id = UInt16(asker.sent[0].bytes[0]) << 8 | UInt16(asker.sent[0].bytes[1])
        asker.hear(response("a.local", "192.0.2.1", id: id &+ 1), isToGroup: false)
        asker.hear(asker.sent[0].bytes)
        #expect(asker.events.isEmpty && asker.questions.statistics.ignored == 6)
        asker.hear([1, 2, 3])
        #expect(asker.questions.statistics.malformed == 1)
        asker.hear(response("a.local", "192.0.2.1", id: id), isToGroup: false)
        #expect(asker.events.count == 1)
    }

    @Test func isLimited() {
        let asker = Asker()
        for number in 0..<64 { #expect(asker.ask("n\(number).local") == .asked) }
        #expect(asker.ask("more.local") == .tooMany && asker.ask("n3.local") == .asked)
        #expect(asker.ask("example.org") == .refused && asker.ask(String(repeating: "a", count: 100_000)) == .refused)
        #expect(asker.questions.statistics.refused == 3)
        asker.hear(response("n3.local", "192.0.2.1"))
        #expect(asker.ask("more.local") == .asked)
        asker.run(until: start + .seconds(30))
        #expect(asker.events.count == 65 && asker.questions.isIdle)
    }

    @Test func remembersSoManyAtMost() {
        let asker = Asker { $0.maximumKnown = 4 }
        for number in 0..<10 {
            _ = asker.ask("n\(number).local")
            asker.hear(response("n\(number).local", "192.0.2.1"))
            asker.now = asker.now + .milliseconds(1)
        }
        #expect((0..<10).map { asker.ask("n\($0).local") == .asked } == (0..<10).map { $0 < 6 })
    }

    @Test func beginsAgainWhenTheNetworkIsAnother() {
        let asker = Asker()
        _ = asker.ask("a.local")
        _ = asker.ask("b.local")
        asker.hear(response("a.local", "192.0.2.1"))
        asker.questions.networkChanged()
        #expect(asker.ask("a.local") == .asked)
        #expect(asker.sent.count == 8)
    }
}

@Suite struct MulticastSockets {
    private let world = StreamWorld()
    private let loopback = MulticastLink(interface: 1, isIPv4: true)

    private var systemLinks: [MulticastLink] {
        if case .complete(let snapshot) = NetworkSnapshot.read() { snapshot.multicastLinks } else { [] }
    }

    private func resolver(_ links: [MulticastLink]) -> (MulticastResolver, () -> [MulticastQuestions.Event]) {
        let resolver = MulticastResolver(watch: world.table, links: { links })
        var events: [MulticastQuestions.Event] = []
        resolver.resolved = { name, addresses, _ in events.append(.init(name: name, addresses: addresses)) }
        return (resolver, { events })
    }

    /// A host with that name, on the loopback interface: as Chromium it answers to the group.
    private final class Host {
        let descriptor: Int32
        let name: String
        let link: MulticastLink
        var answersToAsker = false

        init?(_ name: String, _ link: MulticastLink) {
            var group = link.group.system
            descriptor = cs_multicast_open(&group, link.interface, 1)
            self.name = name
            self.link = link
            if descriptor < 0 { return nil }
        }

        deinit { cs_close(descriptor) }

        func turn() {
            var buffer = [UInt8](repeating: 0, count: 1500)
            var from = cs_address()
            let count = cs_multicast_receive(descriptor, &buffer, 1500, &from)
            guard count > 0 else { return }
            let label = name.split(separator: ".")[0]
            let asked = Array(buffer.prefix(Int(count)).dropFirst(13).prefix(label.utf8.count))
            guard asked == Array(label.utf8), buffer[2] & 0x80 == 0, buffer[Int(count) - 3] == 1 else { return }
            let id = UInt16(buffer[0]) << 8 | UInt16(buffer[1])
            let answer = response(name, "192.0.2.99", id: answersToAsker ? id : 0)
            var to = answersToAsker ? from : link.group.system
            cs_multicast_send(descriptor, &to, link.interface, answer, UInt32(answer.count))
        }
    }

    @Test(arguments: [true, false]) func findAHostOnTheLink(_ isIPv4: Bool) throws {
        // The loopback interface has no way to multicast groups of IPv6; another one may.
        let link = isIPv4 ? loopback : systemLinks.first { !$0.isIPv4 && $0.interface != 1 }
        let name = "host-\(UInt32.random(in: 0 ... .max)).local"
        // Where the system has no multicast there is nothing to see.
        guard let link, let host = Host(name, link) else { return }
        world.others.append { host.turn() }
        let (resolver, events) = resolver([link])
        #expect(resolver.resolve(name, now: world.now) == .asked && world.table.count == 1)
        try world.run("an answer, \(resolver.statistics)") { !events().isEmpty }
        #expect(events() == [.init(name: name, addresses: [IPAddress("192.0.2.99")!])])
        #expect(world.table.count == 0, "nobody is asked any more")
        #expect(resolver.resolve(name, now: world.now) == .known([IPAddress("192.0.2.99")!]))
    }

    @Test func hearAnswersToThemselves() throws {
        let name = "host-\(UInt32.random(in: 0 ... .max)).local"
        guard let host = Host(name, loopback) else { return }
        host.answersToAsker = true
        world.others.append { host.turn() }
        // A socket that is not of the group, as where that is not allowed.
        var group = loopback.group.system
        let descriptor = cs_multicast_open(&group, 1, 0)
        defer { cs_close(descriptor) }
        let questions = MulticastQuestions(random: SystemRandomNumberGenerator())
        #expect(questions.ask(name, now: world.now) == .asked)
        var buffer = [UInt8](repeating: 0, count: 512)
        let count = buffer.withUnsafeMutableBytes { room in
            var output = OutputRawSpan(buffer: room, initializedCount: 0)
            let isThere = questions.pollTransmit(into: &output)
            #expect(isThere)
            return output.finalize(for: room)
        }
        #expect(cs_multicast_send(descriptor, &group, 1, buffer, UInt32(count)) == 0)
        var event: MulticastQuestions.Event?
        try world.run("an answer") {
            var from = cs_address()
            var answer = [UInt8](repeating: 0, count: 512)
            let count = cs_multicast_receive(descriptor, &answer, 512, &from)
            if count > 0 {
                let bytes = Array(answer.prefix(Int(count)))
                questions.handle(bytes.span.bytes, from: SocketAddress(from), isToGroup: false, now: world.now)
            }
            event = questions.pollEvent()
            return event != nil
        }
        #expect(event?.addresses == [IPAddress("192.0.2.99")!])
    }

    @Test func giveUpAndCloseTheirSockets() throws {
        let (resolver, events) = resolver([loopback, MulticastLink(interface: 999_999, isIPv4: true)])
        let name = "nobody-\(UInt32.random(in: 0 ... .max)).local"
        #expect(resolver.resolve(name, now: world.now) == .asked)
        #expect(resolver.resolve("example.org", now: world.now) == .refused)
        while let due = resolver.nextTimeout { resolver.handleTimeout(now: due) }
        #expect(events() == [.init(name: name, addresses: [])] && world.table.count == 0)
        #expect(resolver.statistics.questionsSent == 6)
    }

    @Test func sayAtTheEndThatThereIsNoLink() throws {
        let (resolver, events) = resolver([])
        #expect(resolver.resolve("a.local", now: world.now) == .asked)
        while let due = resolver.nextTimeout { resolver.handleTimeout(now: due) }
        #expect(events().count == 1)
    }

    @Test func mayAskWhileTheyTell() throws {
        let (resolver, _) = resolver([loopback])
        var told: [String] = []
        resolver.resolved = { [unowned resolver] name, _, now in
            told.append(name)
            if told.count < 3 { _ = resolver.resolve("again\(told.count).local", now: now) }
        }
        #expect(resolver.resolve("first.local", now: world.now) == .asked)
        while let due = resolver.nextTimeout { resolver.handleTimeout(now: due) }
        #expect(told == ["first.local", "again1.local", "again2.local"] && world.table.count == 0)
    }

    @Test func endWithTheResolver() {
        let (resolver, events) = resolver([loopback])
        _ = resolver.resolve("a.local", now: world.now)
        resolver.close()
        #expect(world.table.count == 0 && resolver.nextTimeout == nil && events().isEmpty)
        #expect(resolver.resolve("b.local", now: world.now) == .refused)
    }

    @Test func askOnTheInterfacesThatHaveAddresses() {
        var network = Described()
        let loopback = network.interface("lo", "127.0.0.1", "::1")
        let card = network.interface("eth0", "192.0.2.1", "192.0.2.2", "fe80::1")
        network.interface("eth1", isRunning: false, "192.0.3.1")
        let radio = network.interface("wlan0", "2001:db8::1")
        network.route(radio, "fe80::1")
        #expect(
            network.snapshot.multicastLinks == [
                MulticastLink(interface: radio, isIPv4: false), MulticastLink(interface: card, isIPv4: true),
                MulticastLink(interface: card, isIPv4: false),
            ])
        network.snapshot.hasSystemIndices = false
        #expect(network.snapshot.multicastLinks.map(\.interface) == [0, 0])
        network.snapshot.addresses.removeAll { $0.interface != loopback }
        network.snapshot.hasSystemIndices = true
        #expect(network.snapshot.multicastLinks.map(\.interface) == [loopback, loopback])
    }
}
