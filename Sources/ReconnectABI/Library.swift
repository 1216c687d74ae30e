public import CReconnect

@implementation @_cdecl("reconnect_version")
public func reconnect_version() -> UInt32 { 1 }
