// The kernels of a pass: `summarize` keys, `scan` the summaries of pieces, `read` them.
//
// Blocks are numbered along one dimension. `heads` and `targets` are tables of offsets, one column for each head of what
// is summed over keys, and for each head of queries that reads it: inputs may be broadcast, grouped, or views.

// One block: a tile of features of one head attends to the keys of one piece, start + piece · n .. stop.
// tops (heads, pieces, m), sums (heads, pieces, m, dv + 1).
template <class T, int W>
__global__ void __launch_bounds__(THREADS, 2)
summarize(const T* key, const T* value, const typename Computing<T>::type* per_row, const bool* mask,
          const typename Computing<T>::type* rows, const typename Computing<T>::type* origin, const long long* heads,
          long long num_heads, long long key_stride, long long value_stride, long long start, long long stop,
          long long piece, long long num_pieces, long long dim, long long num_features, long long value_dim,
          typename Computing<T>::type factor, typename Computing<T>::type* tops, typename Computing<T>::type* sums) {
    using A = typename Computing<T>::type;
    constexpr int M = Tile<A>::M, SIZE = Tile<A>::SIZE;
    __shared__ AttendMemory<A, W> shared;
    const int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;

    const int value_tiles = (value_dim + SIDE * W - 1) / (SIDE * W), row_tiles = (num_features + SIZE - 1) / SIZE;
    long long block = blockIdx.x;
    const int value_column = block % value_tiles * SIDE * W;
    block /= value_tiles;
    const long long first_row = block % row_tiles * SIZE;
    block /= row_tiles;
    const long long number = block % num_pieces, head = block / num_pieces;

    const long long first = start + number * piece, last = first + piece < stop ? first + piece : stop;
    const long long map = heads[4 * num_heads + head];
    Keys<T, A> keys;
    keys.x = key + heads[head];
    keys.stride = key_stride;
    keys.factor = factor;
    keys.origin = origin + map * dim;
    keys.mask = mask == nullptr ? nullptr : mask + heads[3 * num_heads + head];
    keys.stop = last;
    keys.per_row = per_row + heads[2 * num_heads + head];
    keys.values = value + heads[num_heads + head];
    keys.value_stride = value_stride;
    const Rows<A> features{rows + map * num_features * dim, static_cast<int>(dim), num_features};

    Sums<A, W> own;
    attend(shared, own, features, first_row, keys, first, dim, value_column, value_dim);

    const long long at = (head * num_pieces + number) * num_features;
    for (int i = 0; i < M; ++i) {
        const A total = sum_of_row(own.total[i]);
        const long long f = first_row + M * ty + i;
        if (f >= num_features) continue;
        A* row = sums + (at + f) * (value_dim + 1);
        for (int w = 0; w < W; ++w) {
            const int v = value_column + tx + SIDE * w;
            if (v < value_dim) row[v] = own.weighted[i][w];
        }
        if (value_column == 0 && tx == 0) {
            row[value_dim] = total;
            tops[at + f] = own.top[i];
        }
    }
}

// One thread: one feature of one head, and one column of its sums, through all pieces. In place, `sums` becomes what comes
// before each piece, and `before` its tops; `last_sums` is over everything, `first_sums` what all of this comes after.
template <class A>
__global__ void __launch_bounds__(THREADS)
scan(const A* first_tops, const A* first_sums, const A* tops, A* sums, A* before, A* last_tops, A* last_sums,
     long long num_heads, long long num_pieces, long long num_features, long long columns) {
    const long long item = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x;
    if (item >= num_heads * num_features * columns) return;
    const long long column = item % columns, f = item / columns % num_features, head = item / columns / num_features;
    A top = first_tops[head * num_features + f], sum = first_sums[item];
    for (long long number = 0; number < num_pieces; ++number) {
        const long long at = (head * num_pieces + number) * num_features + f;
        const A own_top = tops[at], own = sums[at * columns + column];
        sums[at * columns + column] = sum;
        if (column == 0) before[at] = top;
        const A new_top = larger(top, own_top);
        sum = sum * power(top - shift_of(new_top)) + own * power(own_top - shift_of(new_top));
        top = new_top;
    }
    last_sums[item] = sum;
    if (column == 0) last_tops[head * num_features + f] = top;
}

// What a thread has found for its rows, divided, into `out` (rows, dv); zeros where there was no key. Maxima pass over NaN,
// but totals do not: a total is 0 only without any key, and NaN wherever a key or query was.
template <class T, class A, int W>
__device__ void write(T* out, Sums<A, W>& own, long long first_row, long long stop, int value_column, int value_dim) {
    constexpr int M = Tile<A>::M;
    const int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    for (int i = 0; i < M; ++i) {
        const A total = sum_of_row(own.total[i]);
        const long long row = first_row + M * ty + i;
        if (row >= stop) continue;
        for (int w = 0; w < W; ++w) {
            const int v = value_column + tx + SIDE * w;
            if (v < value_dim)
                store(out + row * value_dim + v, total == A(0) ? A(0) : own.weighted[i][w] / total);
        }
    }
}

// One block: a tile of queries attends to all features. tops (heads, m), sums (heads, m, dv + 1), out (targets, L, dv).
template <class T, int W>
__global__ void __launch_bounds__(THREADS, 2)
read(const T* query, const typename Computing<T>::type* rows, const typename Computing<T>::type* origin,
     const typename Computing<T>::type* log_weights, const typename Computing<T>::type* tops,
     const typename Computing<T>::type* sums, const long long* targets, long long num_targets, long long query_stride,
     long long num_queries, long long dim, long long num_features, long long value_dim,
     typename Computing<T>::type factor, T* out) {
    using A = typename Computing<T>::type;
    constexpr int SIZE = Tile<A>::SIZE;
    __shared__ AttendMemory<A, W> shared;

    const int value_tiles = (value_dim + SIDE * W - 1) / (SIDE * W);
    const long long tiles = (num_queries + SIZE - 1) / SIZE;
    long long block = blockIdx.x;
    const int value_column = block % value_tiles * SIDE * W;
    block /= value_tiles;
    const long long first_row = block % tiles * SIZE, target = block / tiles;

    const long long head = targets[num_targets + target], map = targets[2 * num_targets + target];
    const Positions<T, A> queries{query + targets[target], query_stride, factor, origin + map * dim, nullptr, num_queries};
    Features<A> features;
    features.rows = rows + map * num_features * dim;
    features.dim = dim;
    features.stop = num_features;
    features.log_weights = log_weights + map * num_features;
    features.tops = tops + head * num_features;
    features.sums = sums + head * num_features * (value_dim + 1);
    features.value_dim = value_dim;

    Sums<A, W> own;
    attend(shared, own, queries, first_row, features, 0, dim, value_column, value_dim);
    write(out + target * num_queries * value_dim, own, first_row, num_queries, value_column, value_dim);
}
