#pragma once
#include <stdint.h>
#include <openssl/ssl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "certificate.h"
#include "dtls.h"
#include "stun_hmac.h"
