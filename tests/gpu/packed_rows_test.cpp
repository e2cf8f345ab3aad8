// Products of few rows in every way that they can be cut, which shapes alone choose elsewhere; and in a chain whose kernels begin early.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "gpu/here.h"
#include "kernels/kernel_case.h"
#include "ops/matmul/packed_matmul_cuda.h"
#include "ops/quantize/packed_dequant_cuda.h"

namespace tandem::cuda {
namespace {

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

// Memory of the GPU that the calls of one test share; freed with it.
class Memory {
 public:
  ~Memory() {
    for (void* piece : pieces_) cudaFree(piece);
  }
  void* room(std::size_t bytes) {
    require(cudaMalloc(&pieces_.emplace_back(), bytes));
    require(cudaMemset(pieces_.back(), 0xff, bytes));
    return pieces_.back();
  }
  void* copy(const Tensor& from) {
    void* to = room(from.size_bytes());
    require(cudaMemcpy(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice));
    return to;
  }

 private:
  std::vector<void*> pieces_;
};

bool has_clusters() {
  int major = 0;
  return testing::has_gpu() && cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major >= 9;
}

std::vector<int> clusters() { return has_clusters() ? std::vector<int>{1, 2, 4, 8} : std::vector<int>{1}; }

struct Extents {
  int m, k, n;
  int chunk = kMatMulChunk, bits = 16;
  int chunks() const { return (k + chunk - 1) / chunk; }
  int words() const { return chunks() * chunk * bits / 512; }
  std::size_t tile_bytes() const { return static_cast<std::size_t>((n + 7) / 8 * words()) * 512; }
};

// Of x [m,k], whose k is a multiple of 8.
PackedRows rows_of(const Extents& e, const void* x, const void* words, void* y) {
  return {.x = x, .words = words, .y = y, .m = e.m, .n = e.n, .depth = e.k, .pitch = e.k, .chunks = e.chunks()};
}

void expect_result(DType dtype, const Extents& e, const void* y, const std::vector<double>& expected, const std::string& what) {
  Tensor got(dtype, {e.m, e.n});
  require(cudaStreamSynchronize(nullptr));
  require(cudaMemcpy(got.mutable_data(), y, got.size_bytes(), cudaMemcpyDeviceToHost));
  test::expect_close(got, Tensor::of(dtype, {e.m, e.n}, expected), test::tolerance_of(dtype), what);
}

TEST(PackedRows, EveryCutOfFloats) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const int m : {2, 11, 16}) {
      Memory memory;
      const Extents e = {m, 2120, 270};
      const Tensor x = test::random_tensor(dtype, {m, e.k}, 1), b = test::random_tensor(dtype, {e.k, e.n}, 2, 0.02);
      std::vector<double> expected;
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < e.n; ++j) {
          double sum = 0;
          for (int l = 0; l < e.k; ++l) sum += x.at(i * e.k + l) * b.at(l * e.n + j);
          expected.push_back(sum);
        }
      void *words = memory.room(e.tile_bytes()), *y = memory.room(static_cast<std::size_t>(m * e.n) * 2);
      launch_pack_tiles(memory.copy(b), words, 16, e.k, e.n, e.words(), 0, nullptr);
      PackedRows p = rows_of(e, memory.copy(x), words, y);
      for (const int tiles : kMatMulTiles)
        for (const int cluster : clusters()) {
          p.cluster = cluster;
          require(cudaMemset(y, 0xff, static_cast<std::size_t>(m * e.n) * 2));
          require(prepare_packed_matmul(dtype, tiles));
          launch_packed_matmul(dtype, tiles, p, Start(nullptr));
          require(cudaGetLastError());
          expect_result(dtype, e, y, expected, std::to_string(tiles) + " tiles, cluster of " + std::to_string(cluster));
        }
    }
}

TEST(PackedRows, EveryCutOfCodes) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  for (const DType codes : {DType::i8, DType::u8, DType::i4, DType::u4, DType::f8e4m3})
    for (const int groups : {0, 1, 2, 4}) {
      const bool nibbles = bits(codes) == 4;
      if (groups == 4 && !nibbles) continue;
      Memory memory;
      const Extents e = {13, 1160, 262, nibbles ? 128 : 64, bits(codes)};
      const int block = groups == 0 ? e.k : groups == 1 ? 2 * e.chunk : e.chunk / groups, given = (e.k + block - 1) / block;
      const unsigned flip = codes == DType::i8 ? 0x80 : codes == DType::i4 ? 8 : 0;
      const Tensor x = test::random_tensor(DType::bf16, {e.m, e.k}, 1), b = test::random_tensor(codes, {e.k, e.n}, 2, 2);
      const Tensor scale = test::random_tensor(DType::f32, {given, e.n}, 3);
      std::vector<double> expected;
      for (int i = 0; i < e.m; ++i)
        for (int j = 0; j < e.n; ++j) {
          double sum = 0;
          for (int l = 0; l < e.k; ++l) sum += x.at(i * e.k + l) * b.at(l * e.n + j) * scale.at(l / block * e.n + j);
          expected.push_back(sum);
        }
      const void* scales = memory.copy(scale);
      void *words = memory.room(e.tile_bytes()), *y = memory.room(static_cast<std::size_t>(e.m * e.n) * 2);
      launch_pack_tiles(memory.copy(b), words, e.bits, e.k, e.n, e.words(), flip, nullptr);
      PackedRows p = rows_of(e, memory.copy(x), words, y);
      p.offset = static_cast<int>(flip);
      if (groups == 0) {
        p.scale = scales, p.scale_type = DType::f32, p.scale_column = 1;
      } else {
        p.chunks_of_group = groups == 1 ? 2 : 1;
        p.scale_groups = groups == 1 ? (e.chunks() + 1) / 2 : e.chunks() * groups;
        auto* packed = static_cast<float*>(memory.room(static_cast<std::size_t>((e.n + 31) / 32 * p.scale_groups) * 128));
        launch_pack_scales({scales, packed, e.n, 1, given, p.scale_groups, e.n, DType::f32}, nullptr);
        p.block_scales = packed;
      }
      const auto tiles_of = groups == 0 ? std::span<const int>(kDequantTiles) : std::span<const int>(kDequantBlockTiles);
      for (const int tiles : tiles_of)
        for (const int cluster : clusters()) {
          p.cluster = cluster;
          const PackedDequant form = {DType::bf16, codes, groups, tiles};
          require(cudaMemset(y, 0xff, static_cast<std::size_t>(e.m * e.n) * 2));
          require(prepare_packed_dequant(form));
          launch_packed_dequant(form, p, Start(nullptr));
          require(cudaGetLastError());
          expect_result(DType::bf16, e, y, expected,
                        std::string(to_string(codes)) + ", " + std::to_string(groups) + " groups, " + std::to_string(tiles) +
                            " tiles, cluster of " + std::to_string(cluster));
        }
    }
}

// Each reads what the one before it wrote, and has its matrix under way by then.
TEST(PackedRows, SameBitsWhereTheyBeginEarly) {
  if (!has_clusters()) GTEST_SKIP() << "no GPU that starts kernels early";
  constexpr int kCalls = 40;
  Memory memory;
  const Extents e = {16, 2048, 2048};
  const Tensor x = test::random_tensor(DType::bf16, {e.m, e.k}, 1),
               b = test::random_tensor(DType::bf16, {e.k, e.n}, 2, 1 / std::sqrt(2048.0));
  void* words = memory.room(e.tile_bytes());
  launch_pack_tiles(memory.copy(b), words, 16, e.k, e.n, e.words(), 0, nullptr);
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  require(cudaDeviceSynchronize());
  for (const int cluster : clusters())
    for (const int tiles : {4, 16}) {
      require(prepare_packed_matmul(DType::bf16, tiles));
      std::vector<std::vector<char>> results;
      for (const bool early : {false, true}) {
        void* turns[] = {memory.copy(x), memory.room(x.size_bytes())};
        require(cudaDeviceSynchronize());
        for (int call = 0; call < kCalls; ++call) {
          PackedRows p = rows_of(e, turns[call % 2], words, turns[(call + 1) % 2]);
          p.cluster = cluster;
          p.resident = early && call > 0;
          launch_packed_matmul(DType::bf16, tiles, p, Start(stream, early && call > 0));
          require(cudaGetLastError());
        }
        results.emplace_back(x.size_bytes());
        require(cudaMemcpyAsync(results.back().data(), turns[kCalls % 2], x.size_bytes(), cudaMemcpyDeviceToHost, stream));
        require(cudaStreamSynchronize(stream));
      }
      EXPECT_EQ(results[0] == results[1], true) << tiles << " tiles, cluster of " << cluster;
    }
  cudaStreamDestroy(stream);
}

// Of an H200, also on machines without a GPU: enough multiprocessors have work, and no few blocks are left for the end.
TEST(PackedRows, CutsFillTheGpu) {
  for (const std::int64_t k : {1024, 4096, 14336})
    for (const std::int64_t m : {2, 16})
      for (const std::int64_t n : {1536, 3072, 4096, 6144, 7168, 14336, 28672, 128256}) {
        const PackedCut cut = packed_cut({n, k / kMatMulChunk, 1024, m * 128}, kMatMulTiles, 132, true);
        const std::int64_t blocks = (n + 8 * cut.tiles - 1) / (8 * cut.tiles) * cut.cluster, last = (blocks - 1) % 264 + 1;
        EXPECT_GE(last, 88) << k << " x " << n << ": " << cut.tiles << " tiles, cluster of " << cut.cluster;
      }
}

}  // namespace
}  // namespace tandem::cuda
