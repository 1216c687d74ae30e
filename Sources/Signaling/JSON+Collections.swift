import CJansson

/// Arrays, and objects whose member names are not known beforehand.
extension JSON {
    func append(_ value: borrowing JSON) throws(SignalingError) {
        guard unsafe json_array_append_new(root, json_incref(value.root)) == 0 else { throw .encodingFailed }
    }

    /// How much it would take as compact text.
    var byteCount: Int { unsafe json_dumpb(root, nil, 0, Int(JSON_COMPACT) | Int(JSON_ENCODE_ANY)) }

    /// The number, also if it was written with a fraction or an exponent.
    var number: Double? {
        switch kind {
        case .integer: Double(Int64(unsafe json_integer_value(root)))
        case .real: unsafe json_real_value(root)
        default: nil
        }
    }

    /// The members of an object with their names, in their order; nothing for other kinds.
    func forEachMember(_ body: (String, borrowing JSON) -> Void) {
        var position = unsafe json_object_iter(root)
        while let here = unsafe position {
            if let name = unsafe json_object_iter_key(here), let value = unsafe json_object_iter_value(here),
                let owned = unsafe json_incref(value)
            {
                body(unsafe String(cString: name), unsafe JSON(owning: owned))
            }
            unsafe position = json_object_iter_next(root, here)
        }
    }
}
