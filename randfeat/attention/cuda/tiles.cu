// Tiles that every kernel is made of: numbers, products of rows, and softmax attention without its denominator.
//
// Features are φ_f(x) = 2^(u·w_f + b_f + r(x)) with u = factor x - origin; exponents are in base 2 throughout. What
// linear attention needs is softmax attention, twice:
//
//     features attend to keys:      S_f = Σ_j 2^(w_f·u_j + r_j - c_f) v_j,     z_f = Σ_j 2^(w_f·u_j + r_j - c_f),
//     queries attend to features:   o_i = Σ_f 2^(u_i·w_f + b_f + c_f - t_i) S_f / Σ_f 2^(u_i·w_f + b_f + c_f - t_i) z_f,
//
// c_f and t_i being the largest exponents of their row. One routine, `attend`, does both, as online softmax (Milakov &
// Gimelshein 2018): a running maximum for each row, and sums that are rescaled when it grows. No exponent is above 0, so
// nothing overflows; z_f >= 1 at the feature that attains t_i, so nothing is divided by zero; features are in registers
// and shared memory only. A maximum over nothing is -inf, for which 0 is subtracted.
//
// A block has 256 threads, as 16 × 16. Thread (ty, tx) has the rows M ty .. M ty + M - 1 of a tile, and the columns
// tx, tx + 16, ...; tiles have 16 M rows and columns, 64 in float (M = 4) and 32 in double (M = 2). Shared arrays are
// transposed, [column][row], so that the M rows of a thread are one vector load, and padded by 4 against bank conflicts.
//
// Cost, for each tile of 64 × 64 in float: 64 (d + dv) multiply-adds for each row, five loads from shared memory for
// sixteen of them, and 64 exponentials. At most 128 registers a thread and 36 KiB of shared memory a block leave room for
// two blocks, 16 warps, on a multiprocessor. Products go to the ordinary units. Tensor cores would take the two innermost
// loops of `attend`: the weights, at most 1, go well into half precision, but exponents lose digits in TF32 as their size
// grows. Asynchronous copies would fill the next panel during the products of this one.

constexpr int SIDE = 16;             // threads along each side of a tile
constexpr int THREADS = SIDE * SIDE;
constexpr int DEPTH = 16;            // what a product sums over, at a time

struct Half { unsigned short bits; };
struct BFloat16 { unsigned short bits; };

template <class T> struct Computing { using type = float; };
template <> struct Computing<double> { using type = double; };

#ifdef __CUDACC__
__device__ inline float number(Half x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
__device__ inline void store(Half* at, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at->bits) : "f"(x)); }
__device__ inline float of_bits(unsigned int bits) { return __uint_as_float(bits); }
__device__ inline unsigned int bits_of(float x) { return __float_as_uint(x); }
#endif  // compiled for a CPU, these four come from elsewhere
__device__ inline float number(float x) { return x; }
__device__ inline double number(double x) { return x; }
__device__ inline float number(BFloat16 x) { return of_bits(static_cast<unsigned int>(x.bits) << 16); }
__device__ inline void store(float* at, float x) { *at = x; }
__device__ inline void store(double* at, double x) { *at = x; }
__device__ inline void store(BFloat16* at, float x) {  // to the nearest, ties to even
    unsigned int bits = bits_of(x);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    at->bits = static_cast<unsigned short>(nan ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline float power(float x) { return exp2f(x); }
__device__ inline double power(double x) { return exp2(x); }
__device__ inline float larger(float x, float y) { return fmaxf(x, y); }
__device__ inline double larger(double x, double y) { return fmax(x, y); }
template <class A> __device__ inline A nothing() { return -static_cast<A>(of_bits(0x7f800000u)); }  // -inf
template <class A> __device__ inline A shift_of(A top) { return top == nothing<A>() ? A(0) : top; }

// The largest, and the sum, over the 16 threads that have the same rows: lanes of one half of a warp.
template <class A> __device__ inline A largest_of_row(A x) {
    for (int lane = SIDE / 2; lane > 0; lane /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}
template <class A> __device__ inline A sum_of_row(A x) {
    for (int lane = SIDE / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

template <class A> struct Tile {
    static constexpr int M = sizeof(A) == 4 ? 4 : 2;
    static constexpr int SIZE = SIDE * M;
    static constexpr int STRIDE = SIZE + 4;
};

// The queries or keys of one head: u_i = factor x_i - origin, i < stop.
template <class T, class A> struct Positions {
    const T* x;
    long long stride;
    A factor;
    const A* origin;
    const bool* mask;  // null: all are present
    long long stop;

    __device__ bool present(long long i) const { return i < stop && (mask == nullptr || mask[i]); }
    __device__ A at(long long i, int k) const { return number(x[i * stride + k]) * factor - origin[k]; }
};

// The rows w_f of one map, f < stop.
template <class A> struct Rows {
    const A* rows;
    int dim;
    long long stop;

    __device__ bool present(long long f) const { return f < stop; }
    __device__ A at(long long f, int k) const { return rows[f * dim + k]; }
};

// Keys as what features attend to.
template <class T, class A> struct Keys : Positions<T, A> {
    const A* per_row;
    const T* values;
    long long value_stride;

    __device__ A bias(long long j) const { return per_row[j]; }
    __device__ A weight(long long) const { return A(1); }
    __device__ A value(long long j, int v) const { return number(values[j * value_stride + v]); }
};

// Features, with the sums over keys, as what queries attend to. sums (m, dv + 1) has z in its last column.
template <class A> struct Features : Rows<A> {
    const A* log_weights;
    const A* tops;
    const A* sums;
    int value_dim;

    __device__ A bias(long long f) const { return tops[f] + log_weights[f]; }
    __device__ A weight(long long f) const { return sums[f * (value_dim + 1) + value_dim]; }
    __device__ A value(long long f, int v) const { return sums[f * (value_dim + 1) + v]; }
};

// Coordinates start .. start + DEPTH - 1 of `count` rows from `first` on; zeros for what is absent.
template <class A, int STRIDE, class Source>
__device__ void load(A (&panel)[DEPTH][STRIDE], const Source& from, long long first, int count, int start, int dim) {
    for (int item = threadIdx.x; item < count * DEPTH; item += THREADS) {
        int row = item / DEPTH, k = item % DEPTH;
        bool inside = start + k < dim && from.present(first + row);
        panel[k][row] = inside ? from.at(first + row, start + k) : A(0);
    }
}

// What a thread has summed for its M rows: relative to 2^top, W columns of values, and its share of the total.
template <class A, int W> struct Sums {
    A top[Tile<A>::M];
    A total[Tile<A>::M];
    A weighted[Tile<A>::M][W];

    __device__ Sums() {
        for (int i = 0; i < Tile<A>::M; ++i) {
            top[i] = nothing<A>();
            total[i] = A(0);
            for (int w = 0; w < W; ++w) weighted[i][w] = A(0);
        }
    }

    __device__ void rescale(int i, A new_top) {
        A scale = power(top[i] - shift_of(new_top));
        top[i] = new_top;
        total[i] *= scale;
        for (int w = 0; w < W; ++w) weighted[i][w] *= scale;
    }
};

// Shared memory of `attend`: 34 KiB with W = 8.
template <class A, int W> struct AttendMemory {
    alignas(16) A left[DEPTH][Tile<A>::STRIDE];
    alignas(16) A right[DEPTH][Tile<A>::STRIDE];
    alignas(16) A weights[Tile<A>::SIZE][Tile<A>::STRIDE];
    alignas(16) A values[DEPTH][SIDE * W];
};

// e_ij = left_i · right_j for a tile: all threads come with the same arguments.
template <class A, int W, class Left, class Right>
__device__ void products(AttendMemory<A, W>& shared, A (&e)[Tile<A>::M][Tile<A>::M], const Left& left, long long row,
                         const Right& right, long long column, int dim) {
    constexpr int M = Tile<A>::M;
    const int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < M; ++j) e[i][j] = A(0);
    for (int start = 0; start < dim; start += DEPTH) {
        load(shared.left, left, row, Tile<A>::SIZE, start, dim);
        load(shared.right, right, column, Tile<A>::SIZE, start, dim);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k)
            for (int i = 0; i < M; ++i)
                for (int j = 0; j < M; ++j) e[i][j] += shared.left[k][M * ty + i] * shared.right[k][tx + SIDE * j];
        __syncthreads();
    }
}

// DEPTH rows of values from `first` on, columns from `column` on; zeros for what is absent.
template <class A, int WIDTH, class Source>
__device__ void load_values(A (&values)[DEPTH][WIDTH], const Source& from, long long first, int column, int value_dim) {
    for (int item = threadIdx.x; item < DEPTH * WIDTH; item += THREADS) {
        int row = item / WIDTH, v = item % WIDTH;
        bool inside = column + v < value_dim && from.present(first + row);
        values[row][v] = inside ? from.value(first + row, column + v) : A(0);
    }
}

// Adds to the sums of the tile of rows from `row` on what they attend to: the columns from `first` on.
template <class A, int W, class Left, class Right>
__device__ void attend(AttendMemory<A, W>& shared, Sums<A, W>& sums, const Left& left, long long row,
                       const Right& right, long long first, int dim, int value_column, int value_dim) {
    constexpr int M = Tile<A>::M, SIZE = Tile<A>::SIZE;
    const int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    for (long long start = first; start < right.stop; start += SIZE) {
        A e[M][M], weight[M];
        products(shared, e, left, row, right, start, dim);
        for (int j = 0; j < M; ++j) {
            long long column = start + tx + SIDE * j;
            bool present = right.present(column);
            A bias = present ? right.bias(column) : A(0);
            weight[j] = present ? right.weight(column) : A(0);
            for (int i = 0; i < M; ++i) e[i][j] = present ? e[i][j] + bias : nothing<A>();
        }
        for (int i = 0; i < M; ++i) {
            A top = e[i][0];
            for (int j = 1; j < M; ++j) top = larger(top, e[i][j]);
            sums.rescale(i, larger(sums.top[i], largest_of_row(top)));
            for (int j = 0; j < M; ++j) {
                A p = power(e[i][j] - shift_of(sums.top[i]));
                sums.total[i] += p * weight[j];
                shared.weights[tx + SIDE * j][M * ty + i] = p;
            }
        }
        for (int part = 0; part < SIZE; part += DEPTH) {
            load_values(shared.values, right, start + part, value_column, value_dim);
            __syncthreads();
#pragma unroll 4
            for (int c = 0; c < DEPTH; ++c)
                for (int i = 0; i < M; ++i)
                    for (int w = 0; w < W; ++w)
                        sums.weighted[i][w] += shared.weights[part + c][M * ty + i] * shared.values[c][tx + SIDE * w];
            __syncthreads();
        }
    }
}
