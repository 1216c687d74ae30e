import Wire

/// Who tells when a descriptor can be read or written.
protocol DescriptorWatch: AnyObject {
    func watch(_ descriptor: Int32, writable: Bool, by owner: any DescriptorOwner) -> Bool
    func unwatch(_ descriptor: Int32)
}

protocol DescriptorOwner: AnyObject {
    func ready(_ descriptor: Int32, now: Instant)
}
