import CJansson
import Wire

/// Jansson's values, owned. The only place of this module with unsafe code.
struct JSON: ~Copyable {
    /// Owned: one reference, given back at the end.
    let root: OpaqueValue

    typealias OpaqueValue = UnsafeMutablePointer<json_t>

    init(owning value: OpaqueValue) { unsafe root = value }

    deinit { unsafe json_decref(root) }

    /// Parses one object. A member twice in one object is an error: two readers of the message
    /// might otherwise take different ones.
    static func parse(_ bytes: RawSpan) throws(SignalingError) -> JSON {
        var fault = json_error_t()
        let flags = Int(JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)
        let value = unsafe bytes.withUnsafeBytes { buffer in
            // Jansson wants a pointer even for no bytes.
            guard let base = buffer.baseAddress else { return unsafe json_loadb("", 0, flags, &fault) }
            return unsafe json_loadb(base.assumingMemoryBound(to: CChar.self), buffer.count, flags, &fault)
        }
        guard let value = unsafe value else { throw malformed(&fault, of: bytes.byteCount) }
        return unsafe JSON(owning: value)
    }

    static func makeObject() throws(SignalingError) -> JSON {
        guard let object = unsafe json_object() else { throw .encodingFailed }
        return unsafe JSON(owning: object)
    }

    static func makeArray() throws(SignalingError) -> JSON {
        guard let array = unsafe json_array() else { throw .encodingFailed }
        return unsafe JSON(owning: array)
    }

    private static func malformed(_ fault: inout json_error_t, of count: Int) -> SignalingError {
        let reason: SignalingError.Malformation =
            switch unsafe json_error_code(&fault) {
            case json_error_invalid_utf8: .invalidUTF8
            case json_error_premature_end_of_input: .endOfInput
            case json_error_end_of_input_expected: .trailingBytes
            case json_error_null_character, json_error_null_byte_in_key, json_error_null_value: .nulCharacter
            case json_error_duplicate_key: .duplicateMember
            case json_error_stack_overflow: .tooDeep
            case json_error_numeric_overflow: .numberOverflow
            case json_error_out_of_memory: .outOfMemory
            default: .syntax
            }
        return .malformed(line: max(1, Int(fault.line)), column: max(1, Int(fault.column)), reason)
    }

    var kind: Kind { unsafe Kind(root) }

    enum Kind {
        case object
        case array
        case string
        case integer
        case real
        case boolean
        case null

        fileprivate init(_ value: OpaqueValue) {
            self =
                switch unsafe reconnect_json_type(value) {
                case JSON_OBJECT: .object
                case JSON_ARRAY: .array
                case JSON_STRING: .string
                case JSON_INTEGER: .integer
                case JSON_REAL: .real
                case JSON_TRUE, JSON_FALSE: .boolean
                default: .null
                }
        }
    }

    /// The member `name`, kept alive for itself; nil if the object has none.
    func member(_ name: String) -> JSON? {
        guard let value = unsafe json_object_get(root, name) else { return nil }
        guard let owned = unsafe json_incref(value) else { return nil }
        return unsafe JSON(owning: owned)
    }

    /// The number of an array's elements; zero for other kinds.
    var count: Int { unsafe json_array_size(root) }

    /// An element of an array, kept alive for itself; nil outside.
    func element(_ index: Int) -> JSON? {
        guard index >= 0, let value = unsafe json_array_get(root, index) else { return nil }
        guard let owned = unsafe json_incref(value) else { return nil }
        return unsafe JSON(owning: owned)
    }

    /// The string's length in bytes; zero for other kinds.
    var stringCount: Int { unsafe json_string_length(root) }

    /// Jansson has verified that it is UTF-8 and has no NUL.
    var string: String? {
        guard let start = unsafe json_string_value(root) else { return nil }
        let count = unsafe json_string_length(root)
        return unsafe start.withMemoryRebound(to: UInt8.self, capacity: count) { bytes in
            unsafe String(decoding: UnsafeBufferPointer(start: bytes, count: count), as: UTF8.self)
        }
    }

    var integer: Int64? { kind == .integer ? Int64(unsafe json_integer_value(root)) : nil }

    var boolean: Bool? { kind == .boolean ? unsafe reconnect_json_type(root) == JSON_TRUE : nil }

    func set(_ name: String, _ value: String) throws(SignalingError) {
        try unsafe put(name, Self.text(value))
    }

    func set(_ name: String, _ value: Int64) throws(SignalingError) {
        try unsafe put(name, json_integer(json_int_t(value)))
    }

    func set(_ name: String, _ value: Bool) throws(SignalingError) {
        try unsafe put(name, value ? json_true() : json_false())
    }

    func setNull(_ name: String) throws(SignalingError) { try unsafe put(name, json_null()) }

    func set(_ name: String, _ value: borrowing JSON) throws(SignalingError) {
        try unsafe put(name, json_incref(value.root))
    }

    /// Adds an element to an array.
    func append(_ value: String) throws(SignalingError) {
        let made = unsafe Self.text(value)
        guard unsafe json_array_append_new(root, made) == 0 else { throw .encodingFailed }
    }

    /// nil if it is not a text that JSON can carry.
    private static func text(_ value: String) -> OpaqueValue? {
        var value = value
        return value.withUTF8 { bytes in
            guard let base = bytes.baseAddress else { return unsafe json_stringn("", 0) }
            return unsafe base.withMemoryRebound(to: CChar.self, capacity: bytes.count) { start in
                unsafe json_stringn(start, bytes.count)
            }
        }
    }

    /// Jansson takes the value over, also when it fails.
    private func put(_ name: String, _ value: OpaqueValue?) throws(SignalingError) {
        guard unsafe json_object_set_new(root, name, value) == 0 else { throw .encodingFailed }
    }

    /// The text, compact, members in the order they were set.
    func bytes() throws(SignalingError) -> [UInt8] {
        let flags = Int(JSON_COMPACT | JSON_PRESERVE_ORDER)
        let count = unsafe json_dumpb(root, nil, 0, flags)
        guard count > 0 else { throw .encodingFailed }
        let written = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            let size = unsafe buffer.withMemoryRebound(to: CChar.self) { text in
                unsafe json_dumpb(root, text.baseAddress, text.count, flags)
            }
            initialized = size <= count ? size : 0
        }
        guard written.count == count else { throw .encodingFailed }
        return written
    }
}
