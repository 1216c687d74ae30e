import Testing

@testable import Reload
