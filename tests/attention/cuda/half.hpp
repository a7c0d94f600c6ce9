// Half precision on a CPU, by arithmetic on float: the conversions that a CUDA device has instructions for.

#pragma once

inline float number(Half x) {
    const int exponent = x.bits >> 10 & 31, digits = x.bits & 1023;
    const float size = exponent == 31  ? (digits != 0 ? NAN : INFINITY)
                       : exponent == 0 ? std::ldexp(static_cast<float>(digits), -24)
                                       : std::ldexp(static_cast<float>(digits + 1024), exponent - 25);
    return (x.bits & 0x8000) != 0 ? -size : size;
}

inline void store(Half* at, float x) {  // to the nearest, ties to even, as std::nearbyint rounds
    const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (std::isnan(x)) { at->bits = 0x7fff; return; }
    if (size >= 65520.0f) { at->bits = sign | 0x7c00; return; }
    int exponent = size == 0.0f ? -14 : std::ilogb(size);
    exponent = exponent < -14 ? -14 : exponent;
    const int digits = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));  // 1024 .. 2048 if normal
    at->bits = sign | static_cast<unsigned short>(((exponent + 14) << 10) + digits);
}
