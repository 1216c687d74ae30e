import CSystem
import Foundation
import Testing
import Wire

@testable import Engine

/// Memory that ends where its page does: one byte too far is a crash.
private final class Edge {
    private let base: UnsafeMutableRawPointer
    private let size = 65536

    init() {
        base = mmap(nil, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        mprotect(base + size, 4096, PROT_NONE)
    }

    deinit { munmap(base, size + 4096) }

    func place(_ bytes: [UInt8]) -> UnsafePointer<UInt8> {
        let start = base + (size - bytes.count)
        bytes.withUnsafeBytes { start.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(start), byteCount: $0.count) }
        return UnsafePointer(start.assumingMemoryBound(to: UInt8.self))
    }
}

/// Messages of netlink(7) and rtnetlink(7), in this machine's byte order.
private struct Netlink {
    var bytes: [UInt8] = []

    static func attribute(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
        let length = UInt16(4 + value.count)
        return native(length) + native(type) + value + [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
    }

    static func native<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

    mutating func message(_ type: UInt16, flags: UInt16 = 2, sequence: UInt32 = 1, _ body: [UInt8]) {
        bytes += Netlink.native(UInt32(16 + body.count)) + Netlink.native(type) + Netlink.native(flags)
        bytes += Netlink.native(sequence) + Netlink.native(0 as UInt32) + body
        bytes += [UInt8](repeating: 0, count: (4 - body.count % 4) % 4)
    }

    mutating func link(_ index: Int32, _ name: String, kind: String, flags: UInt32 = 0x41) {
        var body: [UInt8] = [0, 0] + Netlink.native(1 as UInt16) + Netlink.native(index)
        body += Netlink.native(flags) + Netlink.native(0 as UInt32)
        body += Netlink.attribute(3, Array(name.utf8) + [0]) + Netlink.attribute(10, Netlink.native(9 as UInt32))
        body += Netlink.attribute(18, Netlink.attribute(1, Array(kind.utf8) + [0]) + Netlink.attribute(2, [1, 2, 3]))
        message(16, body)
    }

    mutating func address(_ index: UInt32, _ ip: [UInt8], flags: UInt32, type: UInt16 = 20) {
        var body: [UInt8] = [ip.count == 4 ? 2 : 10, 64, UInt8(flags & 0xFF), 0] + Netlink.native(index)
        body += Netlink.attribute(1, ip) + Netlink.attribute(8, Netlink.native(flags))
        message(type, body)
    }

    mutating func route(_ family: UInt8, _ gateway: [UInt8], interface: UInt32, type: UInt16 = 24) {
        var body: [UInt8] = [family, 0, 0, 0, 254, 16, 0, 1, 0, 0, 0, 0]
        body += Netlink.attribute(5, gateway) + Netlink.attribute(4, Netlink.native(interface))
        body += Netlink.attribute(7, gateway)
        message(type, flags: 0, body)
    }

    static var list: [UInt8] {
        var list = Netlink()
        list.link(2, "eth0", kind: "")
        list.link(3, "a-name-that-is-too-long", kind: "bridge", flags: 0x1)
        list.address(2, [192, 0, 2, 1], flags: 0x80)
        list.address(2, [0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [5], flags: 0x121)
        list.message(3, [0, 0, 0, 0])
        return list.bytes
    }
}

@Suite struct NetworkMessages {
    private let edge = Edge()

    private func take(_ bytes: [UInt8], sequence: UInt32 = 1, _ look: (cs_netlink_table) -> Void = { _ in }) -> Int32 {
        let table = cs_netlink_table_create()!
        defer { cs_netlink_table_destroy(table) }
        let result = cs_netlink_take(table, edge.place(bytes), bytes.count, sequence)
        look(table.pointee)
        return result
    }

    @Test func listsAreRead() {
        let result = take(Netlink.list) { table in
            #expect(table.link_count == 2 && table.address_count == 2)
            withUnsafeBytes(of: table.links[0].name) {
                #expect(String(decoding: $0.prefix(5), as: UTF8.self) == "eth0\0")
            }
            withUnsafeBytes(of: table.links[1].kind) { #expect($0.starts(with: "bridge\0".utf8)) }
            // Cut, and ended.
            withUnsafeBytes(of: table.links[1].name) {
                #expect($0.last == 0 && $0.starts(with: "a-name-that-is-".utf8))
            }
            #expect(table.links[0].index == 2 && table.links[0].master == 9)
            #expect(table.links[0].flags == 3 && table.links[1].flags == 1)
            #expect(IPAddress(table.addresses[0].address) == IPAddress("192.0.2.1"))
            #expect(IPAddress(table.addresses[1].address) == IPAddress("2001:db8::5"))
            // The longer flags count: deprecated (0x20), temporary (0x01).
            #expect(table.addresses[0].flags == 0)
            #expect(table.addresses[1].flags == UInt8(CS_ADDRESS_TEMPORARY | CS_ADDRESS_DEPRECATED))
        }
        #expect(result == Int32(CS_NETLINK_DONE))
    }

    @Test func pointToPointLinksAreKnownByTheirOwnEnd() {
        var list = Netlink()
        let body: [UInt8] =
            [2, 32, 0, 0] + Netlink.native(4 as UInt32) + Netlink.attribute(1, [10, 0, 0, 99])
            + Netlink.attribute(2, [10, 0, 0, 1])
        list.message(20, body)
        _ = take(list.bytes) { #expect(IPAddress($0.addresses[0].address) == IPAddress("10.0.0.1")) }
    }

    @Test func routesAreRead() {
        var answer = Netlink()
        answer.route(2, [10, 0, 0, 254], interface: 7)
        let result = take(answer.bytes) { table in
            #expect(table.route4.interface == 7 && IPAddress(table.route4.gateway) == IPAddress("10.0.0.254"))
            #expect(table.route6.interface == 0)
        }
        #expect(result == Int32(CS_NETLINK_DONE))
    }

    @Test func errorsAndInterruptionsAreTold() {
        var error = Netlink()
        error.message(2, Netlink.native(-101 as Int32) + [UInt8](repeating: 0, count: 16))
        #expect(take(error.bytes) == -101)
        var absurd = Netlink()
        absurd.message(2, Netlink.native(Int32.min))
        #expect(take(absurd.bytes) < 0)
        var interrupted = Netlink()
        interrupted.message(16, flags: 0x12, [UInt8](repeating: 0, count: 16))
        #expect(take(interrupted.bytes) == -11)
        // Answers to other questions are not for us.
        let other = take(Netlink.list, sequence: 5) { #expect($0.link_count == 0) }
        #expect(other == Int32(CS_NETLINK_MORE))
        #expect(take([]) == Int32(CS_NETLINK_MORE))
    }

    @Test func theTableIsBounded() {
        let table = cs_netlink_table_create()!
        defer { cs_netlink_table_destroy(table) }
        for round in 0..<60 as Range<UInt32> {
            var list = Netlink()
            for number in 0..<100 as Range<UInt32> {
                list.link(Int32(round * 100 + number + 1), "x", kind: "veth")
                list.address(round * 100 + number + 1, [10, 0, UInt8(round), UInt8(number)], flags: 0)
            }
            #expect(cs_netlink_take(table, edge.place(list.bytes), list.bytes.count, 1) == Int32(CS_NETLINK_MORE))
        }
        #expect(
            table.pointee.link_count == UInt32(CS_LINKS_MAX) && table.pointee.address_count == UInt32(CS_ADDRESSES_MAX))
    }

    private func changes(_ bytes: [UInt8], max: Int = 16) -> [cs_network_change] {
        var changes = [cs_network_change](repeating: cs_network_change(), count: max)
        let count = cs_netlink_parse_changes(edge.place(bytes), bytes.count, &changes, Int32(max))
        return Array(changes.prefix(Int(count)))
    }

    @Test func notificationsAreRead() {
        var messages = Netlink()
        messages.link(2, "eth0", kind: "", flags: 0x1)
        messages.link(3, "eth1", kind: "")
        messages.address(2, [192, 0, 2, 1], flags: 0, type: 21)
        messages.route(2, [10, 0, 0, 254], interface: 7)
        // A route to somewhere, a neighbor, and a bridge's port.
        messages.message(24, [2, 24, 0, 0, 254, 16, 0, 1, 0, 0, 0, 0])
        messages.message(28, [UInt8](repeating: 0, count: 12))
        messages.message(17, [7, 0, 1, 0, 2, 0, 0, 0] + [UInt8](repeating: 0, count: 8))
        let found = changes(messages.bytes)
        #expect(found.map { Int($0.what) } == [CS_CHANGE_LINK, CS_CHANGE_LINK, CS_CHANGE_ADDRESS, CS_CHANGE_ROUTE])
        #expect(found.map(\.is_gone) == [1, 0, 1, 0] && found.map(\.interface) == [2, 3, 2, 0])
        #expect(IPAddress(found[2].address) == IPAddress("192.0.2.1"))
        #expect(changes(messages.bytes, max: 2).count == 2)
    }

    /// Random bytes and damaged messages at the end of a page: nothing is read past it, and the strings end.
    @Test func hostileMessagesAreHarmless() {
        for seed in 0..<20_000 as Range<UInt64> {
            var random = SeededGenerator(seed: seed)
            var bytes = seed % 4 == 0 ? random.bytes(Int.random(in: 0...200, using: &random)) : Netlink.list
            for _ in 0..<Int.random(in: 0...8, using: &random) where !bytes.isEmpty {
                // Most damage in lengths and types, which lead further.
                let at = Int.random(in: bytes.indices, using: &random)
                bytes[Bool.random(using: &random) ? at & ~3 : at] = UInt8.random(in: 0...255, using: &random)
            }
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0...bytes.count, using: &random)) }
            _ = take(bytes) { table in
                for index in 0..<Int(table.link_count) {
                    withUnsafeBytes(of: table.links[index].name) { #expect($0.last == 0, "seed \(seed)") }
                    withUnsafeBytes(of: table.links[index].kind) { #expect($0.last == 0, "seed \(seed)") }
                }
            }
            #expect(changes(bytes).count <= 16, "seed \(seed)")
        }
    }
}
