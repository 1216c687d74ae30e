public import Wire

/// A connector as host threads address it.
public struct ConnectorReference {
    public init?(_ handle: UInt64) { return nil }

    public func connect() throws(Failure) { throw Failure(.internalDefect) }

    public func message(_ json: RawSpan, exchange: Int64) throws(Failure) { throw Failure(.internalDefect) }

    public func signalingFailed(exchange: Int64) throws(Failure) { throw Failure(.internalDefect) }

    public func cacheEntry() throws(Failure) -> String { throw Failure(.internalDefect) }

    public func forget() throws(Failure) { throw Failure(.internalDefect) }

    public func close() throws(Failure) { throw Failure(.internalDefect) }
}

extension Engine {
    public func createConnector(_ configuration: ConnectorConfiguration) throws(Failure) -> UInt64 {
        throw Failure(.internalDefect, "connectors are not there yet")
    }
}
