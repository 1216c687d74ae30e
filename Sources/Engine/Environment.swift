extension Configuration {
    /// Fills in from the environment what the host left at its default.
    public mutating func readEnvironment() throws(Failure) { throw Failure(.internalDefect) }
}
