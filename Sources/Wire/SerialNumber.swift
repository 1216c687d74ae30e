/// A sequence number that wraps around (RFC 1982 serial number arithmetic; RFC 9260 section 1.6
/// for TSNs and SSNs). It is deliberately not `Comparable`: the order is not transitive.
@frozen
public struct SerialNumber<Bits: FixedWidthInteger & UnsignedInteger & Sendable>: Hashable, Sendable {
    public var value: Bits

    @inlinable
    public init(_ value: Bits) { self.value = value }

    /// True if `self` comes before `other`. Numbers exactly half the circle apart come before each
    /// other in neither direction.
    @inlinable
    public func precedes(_ other: Self) -> Bool {
        let distance = other.value &- value
        return distance != 0 && distance < (Bits(1) << (Bits.bitWidth - 1))
    }

    @inlinable
    public func precedesOrEquals(_ other: Self) -> Bool { self == other || precedes(other) }

    @inlinable
    public func follows(_ other: Self) -> Bool { other.precedes(self) }

    /// How many steps it takes from `other` up to `self`, around the circle.
    @inlinable
    public func distance(from other: Self) -> Bits { value &- other.value }

    @inlinable
    public func advanced(by steps: Bits) -> Self { Self(value &+ steps) }
    @inlinable
    public func retreated(by steps: Bits) -> Self { Self(value &- steps) }

    @inlinable public var next: Self { advanced(by: 1) }
    @inlinable public var previous: Self { retreated(by: 1) }
}
