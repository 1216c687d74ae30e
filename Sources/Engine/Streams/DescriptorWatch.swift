import CSystem
import Wire

/// Who tells when a descriptor can be read or written.
protocol DescriptorWatch: AnyObject {
    /// Watches for reading, and for writing if asked. Called again it changes that. False: there is no room for more.
    func watch(_ descriptor: Int32, writable: Bool, by owner: any DescriptorOwner) -> Bool
    /// To be called before the descriptor is closed.
    func unwatch(_ descriptor: Int32)
}

protocol DescriptorOwner: AnyObject {
    /// Something can be read or written, or was a moment ago: a descriptor that another had before may be told once
    /// more than it is ready.
    func ready(_ descriptor: Int32, now: Instant)
}

/// The descriptors on one epoll, each with its owner, which is not kept.
final class DescriptorTable: DescriptorWatch {
    private struct Entry {
        weak var owner: (any DescriptorOwner)?
        var isWritable: Bool
    }

    private let epoll: Int32
    private var entries: [Int32: Entry] = [:]

    /// `epoll` stays the caller's; each descriptor is its own token there.
    init(epoll: Int32) { self.epoll = epoll }

    var count: Int { entries.count }

    func watch(_ descriptor: Int32, writable: Bool, by owner: any DescriptorOwner) -> Bool {
        let token = UInt64(UInt32(bitPattern: descriptor))
        if let entry = entries[descriptor] {
            if entry.isWritable != writable, cs_epoll_modify(epoll, descriptor, token, writable ? 1 : 0) != 0 {
                return false
            }
        } else {
            guard cs_epoll_add(epoll, descriptor, token) == 0 else { return false }
            if writable, cs_epoll_modify(epoll, descriptor, token, 1) != 0 {
                _ = cs_epoll_remove(epoll, descriptor)
                return false
            }
        }
        entries[descriptor] = Entry(owner: owner, isWritable: writable)
        return true
    }

    func unwatch(_ descriptor: Int32) {
        guard entries.removeValue(forKey: descriptor) != nil else { return }
        _ = cs_epoll_remove(epoll, descriptor)
    }

    /// Tells the owner. False: it is none of these.
    func ready(_ descriptor: Int32, now: Instant) -> Bool {
        guard let entry = entries[descriptor] else { return false }
        if let owner = entry.owner { owner.ready(descriptor, now: now) } else { unwatch(descriptor) }
        return true
    }
}
