// Any bytes as messages of the kernel about the network: nothing may be read past their end, and what is kept is bounded
// and well-formed. The first byte is the sequence number of the question.
import CSystem

nonisolated(unsafe) private let changes = UnsafeMutablePointer<cs_network_change>.allocate(capacity: 16)

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzNetlinkMessage(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    guard size > 0, let table = unsafe cs_netlink_table_create() else { return 0 }
    defer { unsafe cs_netlink_table_destroy(table) }
    let result = unsafe cs_netlink_take(table, data + 1, size - 1, UInt32(data[0]))
    check(result <= Int32(CS_NETLINK_DONE) && result > -4096)
    let (links, addresses) = unsafe (Int(table.pointee.link_count), Int(table.pointee.address_count))
    // A link takes 32 bytes at least, an address 32 too.
    check(links <= size / 32 && addresses <= size / 32)
    for index in 0..<links {
        let link = unsafe table.pointee.links[index]
        check(link.name.15 == 0 && link.kind.15 == 0 && link.index != 0 && link.flags < 16)
    }
    for index in 0..<addresses {
        let address = unsafe table.pointee.addresses[index]
        check(address.address.port == 0 && address.address.scope == 0 && address.interface != 0 && address.flags < 16)
    }
    let count = unsafe cs_netlink_parse_changes(data + 1, size - 1, changes, 16)
    check(count >= 0 && count <= 16)
    for index in 0..<Int(count) {
        let change = unsafe changes[index]
        check(Int(change.what) >= CS_CHANGE_LINK && Int(change.what) < CS_CHANGE_UNKNOWN && change.is_gone < 2)
    }
    return 0
}

private func check(_ condition: Bool) { precondition(condition) }
