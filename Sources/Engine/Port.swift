import CSystem
import Storage
import Wire

/// One bound UDP socket.
final class Port {
    let descriptor: Int32
    let isIPv4: Bool
    let number: UInt16

    private init(descriptor: Int32, isIPv4: Bool, number: UInt16) {
        self.descriptor = descriptor
        self.isIPv4 = isIPv4
        self.number = number
    }

    deinit { cs_close(descriptor) }

    static func open(_ address: SocketAddress) throws(Failure) -> Port {
        var bind = address.system
        var number: UInt16 = 0
        var isIPv4: Int32 = 0
        let descriptor = unsafe cs_udp_open(&bind, &number, &isIPv4)
        guard descriptor < 0 else { return Port(descriptor: descriptor, isIPv4: isIPv4 != 0, number: number) }
        let error = -descriptor
        let reason = String(systemError: error)
        throw Failure(Status(systemError: error), "cannot open UDP port \(address.port) on \(address.ip): \(reason)")
    }
}

extension Status {
    /// What an error number of the operating system means to a host.
    init(systemError number: Int32) {
        self =
            switch Int(number) {
            case CS_EADDRINUSE: .portInUse
            case CS_EACCES, CS_EPERM: .noPermission
            case CS_EMFILE, CS_ENFILE: .noDescriptors
            case CS_ENOMEM: .noMemory
            case CS_EADDRNOTAVAIL: .noAddress
            default: .system
            }
    }
}
