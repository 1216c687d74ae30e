#ifndef CJANSSON_SHIM_H
#define CJANSSON_SHIM_H

#include <jansson.h>

/* Jansson's type test is a macro over the struct, which Swift does not import. */
static inline json_type reconnect_json_type(const json_t *value) { return json_typeof(value); }

#endif
