/// From keyed hashes of names to slots: open addressing, linear probing. What has the hash is for the caller to
/// compare in full.
struct NameIndex {
    private struct Cell {
        var hash: UInt64
        var slot: Int32
    }

    private static let vacant: Int32 = -1
    private var cells: ContiguousArray<Cell>
    private(set) var count = 0

    init() { cells = ContiguousArray(repeating: Cell(hash: 0, slot: Self.vacant), count: 16) }

    private var mask: Int { cells.count &- 1 }

    @inline(__always)
    private func home(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash) & mask }

    @inline(__always)
    func find(_ hash: UInt64, where isSame: (Int) -> Bool) -> Int? {
        var place = home(hash)
        while cells[place].slot != Self.vacant {
            if cells[place].hash == hash, isSame(Int(cells[place].slot)) { return Int(cells[place].slot) }
            place = (place &+ 1) & mask
        }
        return nil
    }

    /// `slot` must not be in the table.
    mutating func insert(_ hash: UInt64, slot: Int) {
        if count &* 4 >= cells.count &* 3 { resize(cells.count &* 2) }
        place(Cell(hash: hash, slot: Int32(truncatingIfNeeded: slot)))
        count &+= 1
    }

    mutating func remove(_ hash: UInt64, slot: Int) {
        var hole = home(hash)
        while cells[hole].slot != Int32(truncatingIfNeeded: slot) {
            if cells[hole].slot == Self.vacant { return }
            hole = (hole &+ 1) & mask
        }
        count &-= 1
        // What follows moves up if the hole lies between its home and its place.
        var place = (hole &+ 1) & mask
        while cells[place].slot != Self.vacant {
            let distance = (place &- home(cells[place].hash)) & mask
            if distance >= (place &- hole) & mask {
                cells[hole] = cells[place]
                hole = place
            }
            place = (place &+ 1) & mask
        }
        cells[hole].slot = Self.vacant
        if cells.count > 16, count &* 8 < cells.count { resize(cells.count / 2) }
    }

    private mutating func place(_ cell: Cell) {
        var place = home(cell.hash)
        while cells[place].slot != Self.vacant { place = (place &+ 1) & mask }
        cells[place] = cell
    }

    private mutating func resize(_ size: Int) {
        let old = cells
        cells = ContiguousArray(repeating: Cell(hash: 0, slot: Self.vacant), count: size)
        for cell in old where cell.slot != Self.vacant { place(cell) }
    }
}
