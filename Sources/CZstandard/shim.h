#ifndef CZSTANDARD_SHIM_H
#define CZSTANDARD_SHIM_H

#include <zstd.h>
#include <zstd_errors.h>

/* Macros with casts, which Swift does not import. */
static const unsigned long long reconnect_zstd_size_unknown = ZSTD_CONTENTSIZE_UNKNOWN;
static const unsigned long long reconnect_zstd_size_error = ZSTD_CONTENTSIZE_ERROR;

#endif
