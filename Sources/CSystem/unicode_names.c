#include <stdint.h>

/*
 * The standard library's tables of the names of Unicode characters are half a megabyte, and nothing here asks for a name.
 * The library's link (Package.swift, --wrap) leads the one function that reads them here, and so leaves them out.
 */
intptr_t __wrap__swift_stdlib_getScalarName(uint32_t scalar, uint8_t *buffer, intptr_t capacity);

intptr_t __wrap__swift_stdlib_getScalarName(uint32_t scalar, uint8_t *buffer, intptr_t capacity) {
    (void)scalar, (void)buffer, (void)capacity;
    return 0;
}
