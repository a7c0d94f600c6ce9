// Causal attention: a tile of queries attends to the keys of its own chunk, each up to its own position, and then to the
// features of all that comes before the chunk. Chunks are tiles, so each is one block (for each head and tile of values).
//
// No shift may come from a later key. Within a chunk the triangle j <= i therefore falls into
//
//     blocks of BASE on the diagonal, where each pair has a shift of its own, t_ij = max_f (query_if + key_jf);
//     squares of n = BASE, 2 BASE, ...: the second half of each block of 2n positions attends to its first half, and the
//     shift per feature is the largest key of the square, all of which is past.
//
// The rows of a level are either queries or keys of its squares (bit n of the position says which), so one array holds
// the factors of both. Sums over features, the scores, stay in registers, the same pairs with the same threads from the
// first feature to the last; then they are weighted with the values like any other attention.
//
// Cost in float, chunk of 64: beside the products with 2 · 64 rows, 7.5 exponentials and about 40 multiply-adds for each
// position and feature. Shared memory 36 KiB. What is shared by all threads of a block decides every branch with a barrier.

constexpr int BASE = 8;

template <class A> struct Levels {
    static constexpr int COUNT = Tile<A>::M == 4 ? 3 : 2;                    // n = 8, 16 and, in float, 32
    static constexpr int SLOTS = Tile<A>::SIZE * BASE / THREADS;             // pairs of a thread on the diagonal
    __device__ static constexpr int pairs(int level) { return Tile<A>::SIZE * (BASE << level) / 2; }
    static constexpr int MOST = (Tile<A>::SIZE * (BASE << (COUNT - 1)) / 2 + THREADS - 1) / THREADS;
};

template <class A> struct ChunkFeatures {  // of SIDE features at a time
    alignas(16) A queries[DEPTH][Tile<A>::STRIDE];
    alignas(16) A keys[DEPTH][Tile<A>::STRIDE];
    alignas(16) A query_rows[DEPTH][SIDE + 4];
    alignas(16) A key_rows[DEPTH][SIDE + 4];
    alignas(16) A query[SIDE][Tile<A>::STRIDE];  // exponents
    alignas(16) A key[SIDE][Tile<A>::STRIDE];
    A largest[SIDE][Tile<A>::SIZE / BASE];       // of the keys of each block of BASE
    alignas(16) A factors[Levels<A>::COUNT][SIDE][Tile<A>::STRIDE];
};

template <class A, int W> struct ChunkValues {
    alignas(16) A weights[Tile<A>::SIZE][Tile<A>::STRIDE];  // [key][query]
    alignas(16) A values[DEPTH][SIDE * W];
    A own_top[BASE][Tile<A>::SIZE];
    A top[Tile<A>::SIZE];
};

template <class A, int W> struct CausalMemory {
    union {
        AttendMemory<A, W> attend;
        ChunkFeatures<A> features;
        ChunkValues<A, W> values;
    };
    A top[Levels<A>::COUNT][Tile<A>::SIZE];      // of each query, in the square that it reads
    A scale[Levels<A>::COUNT][Tile<A>::SIZE];    // by which this has just changed
};

// A pair of positions: query i, key j.
struct Pair { int i, j; };

__device__ inline Pair pair_in_square(int number, int n) {
    const int square = number / (n * n), row = number / n % n, column = number % n;
    return {square * 2 * n + n + row, square * 2 * n + column};
}
__device__ inline Pair pair_on_diagonal(int number) {
    const int block = number / (BASE * BASE);
    return {block * BASE + number / BASE % BASE, block * BASE + number % BASE};
}

// The exponents of SIDE features from `first` on, for all positions of the chunk.
template <class T, class A>
__device__ void exponents(ChunkFeatures<A>& shared, const Positions<T, A>& queries, const Keys<T, A>& keys,
                          const Rows<A>& query_rows, const Rows<A>& key_rows, const A* log_weights, long long start,
                          int first) {
    constexpr int M = Tile<A>::M;
    const int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE, dim = query_rows.dim;
    A query[M], key[M];
    for (int i = 0; i < M; ++i) query[i] = key[i] = A(0);
    for (int k0 = 0; k0 < dim; k0 += DEPTH) {
        load(shared.queries, queries, start, Tile<A>::SIZE, k0, dim);
        load(shared.keys, keys, start, Tile<A>::SIZE, k0, dim);
        load(shared.query_rows, query_rows, first, SIDE, k0, dim);
        load(shared.key_rows, key_rows, first, SIDE, k0, dim);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k)
            for (int i = 0; i < M; ++i) {
                query[i] += shared.queries[k][M * ty + i] * shared.query_rows[k][tx];
                key[i] += shared.keys[k][M * ty + i] * shared.key_rows[k][tx];
            }
        __syncthreads();
    }
    const bool inside = query_rows.present(first + tx);
    const A log_weight = inside ? log_weights[first + tx] : A(0);
    for (int i = 0; i < M; ++i) {
        const long long position = start + M * ty + i;
        const bool present = inside && keys.present(position);
        shared.query[tx][M * ty + i] = inside ? query[i] + log_weight : nothing<A>();
        shared.key[tx][M * ty + i] = present ? key[i] + keys.bias(position) : nothing<A>();
    }
    __syncthreads();
}

// The largest key of feature f in the square that position `row` belongs to, squares of n.
template <class A> __device__ A largest_of_square(const ChunkFeatures<A>& shared, int f, int row, int n) {
    const int block = row / (2 * n) * (2 * n) / BASE;
    A top = shared.largest[f][block];
    for (int b = 1; b < n / BASE; ++b) top = larger(top, shared.largest[f][block + b]);
    return top;
}

// What a thread has summed over features: scores of its pairs in squares, and on the diagonal with their shifts.
template <class A> struct Scores {
    A square[Levels<A>::COUNT][Levels<A>::MOST];
    A own[Levels<A>::SLOTS];
    A own_top[Levels<A>::SLOTS];

    __device__ Scores() {
        for (int level = 0; level < Levels<A>::COUNT; ++level)
            for (int slot = 0; slot < Levels<A>::MOST; ++slot) square[level][slot] = A(0);
        for (int slot = 0; slot < Levels<A>::SLOTS; ++slot) {
            own[slot] = A(0);
            own_top[slot] = nothing<A>();
        }
    }
};

// The pairs of the diagonal blocks, with SIDE more features.
template <class A> __device__ void add_own(const ChunkFeatures<A>& shared, Scores<A>& scores) {
#pragma unroll
    for (int slot = 0; slot < Levels<A>::SLOTS; ++slot) {
        const Pair at = pair_on_diagonal(threadIdx.x + THREADS * slot);
        if (at.j > at.i) continue;
        A top = scores.own_top[slot];
        for (int f = 0; f < SIDE; ++f) top = larger(top, shared.query[f][at.i] + shared.key[f][at.j]);
        A sum = scores.own[slot] * power(scores.own_top[slot] - shift_of(top));
        for (int f = 0; f < SIDE; ++f) sum += power(shared.query[f][at.i] + shared.key[f][at.j] - shift_of(top));
        scores.own[slot] = sum;
        scores.own_top[slot] = top;
    }
}

// The pairs of all squares, with SIDE more features.
template <class A, int W> __device__ void add_squares(CausalMemory<A, W>& memory, Scores<A>& scores) {
    constexpr int SIZE = Tile<A>::SIZE, LEVELS = Levels<A>::COUNT;
    ChunkFeatures<A>& shared = memory.features;
    for (int item = threadIdx.x; item < LEVELS * SIZE; item += THREADS) {
        const int level = item / SIZE, row = item % SIZE, n = BASE << level;
        if ((row & n) == 0) continue;
        A top = memory.top[level][row];
        for (int f = 0; f < SIDE; ++f) top = larger(top, shared.query[f][row] + largest_of_square(shared, f, row, n));
        memory.scale[level][row] = power(memory.top[level][row] - shift_of(top));
        memory.top[level][row] = top;
    }
    __syncthreads();
    for (int item = threadIdx.x; item < LEVELS * SIDE * SIZE; item += THREADS) {
        const int level = item / (SIDE * SIZE), f = item / SIZE % SIDE, row = item % SIZE, n = BASE << level;
        const A largest = largest_of_square(shared, f, row, n);
        const A exponent = (row & n) != 0 ? shared.query[f][row] + largest - shift_of(memory.top[level][row])
                                          : shared.key[f][row] - shift_of(largest);
        shared.factors[level][f][row] = power(exponent);
    }
    __syncthreads();
#pragma unroll
    for (int level = 0; level < LEVELS; ++level)
#pragma unroll
        for (int slot = 0; slot < Levels<A>::MOST; ++slot) {
            const int number = threadIdx.x + THREADS * slot;
            if (number >= Levels<A>::pairs(level)) continue;
            const Pair at = pair_in_square(number, BASE << level);
            A sum = scores.square[level][slot] * memory.scale[level][at.i];
            for (int f = 0; f < SIDE; ++f) sum += shared.factors[level][f][at.i] * shared.factors[level][f][at.j];
            scores.square[level][slot] = sum;
        }
}

// All scores relative to one shift for each query: shared.weights and shared.top.
template <class A, int W> __device__ void normalize(CausalMemory<A, W>& memory, const Scores<A>& scores) {
    constexpr int SIZE = Tile<A>::SIZE;
    ChunkValues<A, W>& shared = memory.values;
    for (int slot = 0; slot < Levels<A>::SLOTS; ++slot) {
        const Pair at = pair_on_diagonal(threadIdx.x + THREADS * slot);
        if (at.j <= at.i) shared.own_top[at.j % BASE][at.i] = scores.own_top[slot];
    }
    __syncthreads();
    for (int row = threadIdx.x; row < SIZE; row += THREADS) {
        A top = nothing<A>();
        for (int j = 0; j <= row % BASE; ++j) top = larger(top, shared.own_top[j][row]);
        for (int level = 0; level < Levels<A>::COUNT; ++level)
            if ((row & (BASE << level)) != 0) top = larger(top, memory.top[level][row]);
        shared.top[row] = top;
    }
    __syncthreads();
    for (int slot = 0; slot < Levels<A>::SLOTS; ++slot) {
        const Pair at = pair_on_diagonal(threadIdx.x + THREADS * slot);
        if (at.j <= at.i)
            shared.weights[at.j][at.i] = scores.own[slot] * power(scores.own_top[slot] - shift_of(shared.top[at.i]));
    }
#pragma unroll
    for (int level = 0; level < Levels<A>::COUNT; ++level)
#pragma unroll
        for (int slot = 0; slot < Levels<A>::MOST; ++slot) {
            const int number = threadIdx.x + THREADS * slot;
            if (number >= Levels<A>::pairs(level)) continue;
            const Pair at = pair_in_square(number, BASE << level);
            const A scale = power(memory.top[level][at.i] - shift_of(shared.top[at.i]));
            shared.weights[at.j][at.i] = scores.square[level][slot] * scale;
        }
}

// The sums over the values of the chunk, key j <= query i. What is later is never multiplied: 0 · NaN is not 0.
template <class A, int W, class Source>
__device__ void add_weighted_chunk(ChunkValues<A, W>& shared, Sums<A, W>& own, const Source& keys, long long start,
                                   int value_column, int value_dim) {
    constexpr int M = Tile<A>::M, SIZE = Tile<A>::SIZE;
    const int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    for (int i = 0; i < M; ++i) own.top[i] = shared.top[M * ty + i];
    for (int part = 0; part < SIZE; part += DEPTH) {
        load_values(shared.values, keys, start + part, value_column, value_dim);
        __syncthreads();
        for (int c = 0; c < DEPTH; ++c)
            for (int i = 0; i < M; ++i) {
                if (part + c > M * ty + i) continue;
                const A weight = shared.weights[part + c][M * ty + i];
                if (c == tx) own.total[i] += weight;
                for (int w = 0; w < W; ++w) own.weighted[i][w] += weight * shared.values[c][tx + SIDE * w];
            }
        __syncthreads();
    }
}

// One block: one chunk, start + SIZE · n .. stop, of one head of queries. tops (heads, chunks, m) and sums (heads, chunks,
// m, dv + 1) are of what comes before each chunk, out (targets, L, dv).
template <class T, int W>
__global__ void __launch_bounds__(THREADS, 2)
read_causal(const T* query, const T* key, const T* value, const typename Computing<T>::type* per_row, const bool* mask,
            const typename Computing<T>::type* query_rows, const typename Computing<T>::type* key_rows,
            const typename Computing<T>::type* query_origin, const typename Computing<T>::type* key_origin,
            const typename Computing<T>::type* log_weights, const typename Computing<T>::type* tops,
            const typename Computing<T>::type* sums, const long long* heads, const long long* targets,
            long long num_heads, long long num_targets, long long query_stride, long long key_stride,
            long long value_stride, long long start, long long stop, long long length, long long num_chunks,
            long long dim, long long num_features, long long value_dim, typename Computing<T>::type factor, T* out) {
    using A = typename Computing<T>::type;
    constexpr int SIZE = Tile<A>::SIZE;
    __shared__ CausalMemory<A, W> memory;

    const int value_tiles = (value_dim + SIDE * W - 1) / (SIDE * W);
    long long block = blockIdx.x;
    const int value_column = block % value_tiles * SIDE * W;
    block /= value_tiles;
    const long long number = block % num_chunks, target = block / num_chunks;
    const long long first = start + number * SIZE;

    const long long head = targets[num_targets + target], map = targets[2 * num_targets + target];
    const Positions<T, A> queries{query + targets[target], query_stride, factor, query_origin + map * dim, nullptr, stop};
    Keys<T, A> keys;
    keys.x = key + heads[head];
    keys.stride = key_stride;
    keys.factor = factor;
    keys.origin = key_origin + map * dim;
    keys.mask = mask == nullptr ? nullptr : mask + heads[3 * num_heads + head];
    keys.stop = stop;
    keys.per_row = per_row + heads[2 * num_heads + head];
    keys.values = value + heads[num_heads + head];
    keys.value_stride = value_stride;
    Features<A> features;
    features.rows = query_rows + map * num_features * dim;
    features.dim = dim;
    features.stop = num_features;
    features.log_weights = log_weights + map * num_features;
    features.tops = tops + (head * num_chunks + number) * num_features;
    features.sums = sums + (head * num_chunks + number) * num_features * (value_dim + 1);
    features.value_dim = value_dim;
    const Rows<A> rows_of_keys{key_rows + map * num_features * dim, static_cast<int>(dim), num_features};

    for (int item = threadIdx.x; item < Levels<A>::COUNT * SIZE; item += THREADS)
        memory.top[item / SIZE][item % SIZE] = nothing<A>();
    Scores<A> scores;
    for (int f = 0; f < num_features; f += SIDE) {
        exponents(memory.features, queries, keys, features, rows_of_keys, features.log_weights, first, f);
        for (int item = threadIdx.x; item < SIDE * SIZE / BASE; item += THREADS) {
            const int which = item % SIDE, block_of_keys = item / SIDE * BASE;
            A top = memory.features.key[which][block_of_keys];
            for (int j = 1; j < BASE; ++j) top = larger(top, memory.features.key[which][block_of_keys + j]);
            memory.features.largest[which][block_of_keys / BASE] = top;
        }
        add_own(memory.features, scores);
        __syncthreads();
        add_squares(memory, scores);
    }
    __syncthreads();
    normalize(memory, scores);
    Sums<A, W> own;
    add_weighted_chunk(memory.values, own, keys, first, value_column, value_dim);
    attend(memory.attend, own, queries, first, features, 0, dim, value_column, value_dim);
    write(out + target * length * value_dim, own, first, stop, value_column, value_dim);
}
