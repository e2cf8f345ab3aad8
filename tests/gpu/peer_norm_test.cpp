// All-reduce with residual and norm over peer memory: both ways of sending, every type, rows of all lengths, aligned and not, in place.
#include <cmath>
#include <cstring>
#include <iostream>
#include <vector>

#include "comm/norm_oracle.h"
#include "comm/ranks.h"
#include "gpu/peer_rank.h"

namespace tandem::test {
namespace {

enum class Way { chosen, at_once, by_parts };

struct NormCase {
  DType dtype;
  std::int64_t rows, length;
  bool centers, offset;
  Way way = Way::chosen;
  bool shifted = false;   // in memory that is aligned to an element only, on this rank alone
  bool in_place = false;  // y lies where x did
  double special = 0;     // NaN or an infinity, that lies in x of one rank, in the residual and in the scale; 0: none does
};

// What a case is made of, on the host and on the GPU.
class NormRun {
 public:
  NormRun(const PeerRank& rank, const NormCase& c, std::uint64_t seed)
      : rank_(rank), c_(c), sum_(c.dtype, {c.rows, c.length}), y_(c.dtype, {c.rows, c.length}) {
    given_ = random_reduced_norm(rank.group->size(), c.dtype, c.rows, c.length, c.centers, c.offset, seed);
    if (c.special != 0) put_special();
    work_.in = on_gpu(given_.x[static_cast<std::size_t>(rank.group->rank())]);
    work_.residual = on_gpu(given_.residual);
    if (given_.offset) work_.offset = on_gpu(*given_.offset);
    work_.scale = on_gpu(given_.scale);
    if (given_.bias) work_.bias = on_gpu(*given_.bias);
    work_.y = c.in_place ? const_cast<void*>(work_.in) : empty();
    work_.sum = empty();
    work_.rows = c.rows;
    work_.length = c.length;
    work_.epsilon = 1e-5f;
    work_.centers = c.centers;
    work_.dtype = c.dtype;
    work_.aligned = !shifted();
    work_.blocks = rank.peers().blocks();
  }

  // Gives the bytes of both results.
  std::vector<std::byte> run() {
    PeerGroup& group = rank_.peers();
    if (c_.way == Way::chosen) group.reduce_and_norm(work_, rank_.handle, kPatience);
    else if (c_.way == Way::at_once) peer::launch_norm_at_once(group.view(kPatience), work_, rank_.handle);
    else peer::launch_norm_by_parts(group.view(kPatience), work_, rank_.handle);
    cuda::check_launch("the case");
    rank_.wait();
    rank_.copy(sum_.mutable_data(), work_.sum, sum_.size_bytes());
    rank_.copy(y_.mutable_data(), work_.y, y_.size_bytes());
    check_reduced_norm(given_, y_, sum_);
    std::vector<std::byte> bytes(sum_.data(), sum_.data() + sum_.size_bytes());
    bytes.insert(bytes.end(), y_.data(), y_.data() + y_.size_bytes());
    return bytes;
  }

  bool fits() const {
    const int size = rank_.group->size();
    return c_.way == Way::chosen ||
           c_.rows <= (c_.way == Way::at_once ? peer::most_rows_at_once(work_, size) : peer::most_rows_by_parts(work_, size));
  }

 private:
  bool shifted() const { return c_.shifted && rank_.group->rank() == 0; }
  // NaN also as all ones, which is what a word looks like that has not come.
  void put_special() {
    const auto put = [&](Tensor& t, std::int64_t at) { store_element(c_.dtype, t.mutable_data(), at, c_.special); };
    put(given_.x[1], c_.length + 1), put(given_.residual, 3 * c_.length), put(given_.scale, c_.length - 1);
    if (std::isnan(c_.special)) std::memset(given_.x[0].mutable_data(), 0xff, 16);
  }
  std::byte* empty() {
    memory_.push_back(std::make_unique<Buffer>(sum_.size_bytes()));
    memory_.back()->poison(rank_.handle);
    return memory_.back()->at(shifted() ? bytes(c_.dtype, 1) : 0);
  }
  std::byte* on_gpu(const Tensor& tensor) {
    memory_.push_back(std::make_unique<Buffer>(tensor.size_bytes()));
    std::byte* const at = memory_.back()->at(shifted() ? bytes(c_.dtype, 1) : 0);
    rank_.copy(at, tensor.data(), tensor.size_bytes());
    return at;
  }

  const PeerRank& rank_;
  NormCase c_;
  ReducedNorm given_;
  Tensor sum_, y_;
  std::vector<std::unique_ptr<Buffer>> memory_;
  peer::ReduceAndNorm work_{};
};

using PeerNorm = Peers;

TEST_F(PeerNorm, EveryTypeLengthAndWay) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    std::uint64_t seed = 500;
    int cases = 0;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const auto& [rows, length] :
           {std::pair<std::int64_t, std::int64_t>{1, 8}, {1, 4096}, {3, 104}, {5, 4096}, {64, 4096}, {130, 1000}, {300, 512}, {1000, 64}})
        for (const bool centers : {false, true})
          for (const bool offset : {false, true})
            for (const Way way : {Way::chosen, Way::at_once, Way::by_parts}) {
              if (is_slow() && centers != offset) continue;  // what follows the sum is the same for all numbers of ranks
              NormRun run(rank, {dtype, rows, length, centers, offset, way, (rows + length) % 3 == 0, way == Way::by_parts || centers},
                          seed += 10);
              if (!run.fits()) continue;
              const std::vector<std::byte> bytes = run.run();
              for (const auto& theirs : control.exchange(bytes))
                check(theirs == bytes, fmt::format("equal bits on all ranks: {} rows of {} {}{}{}, way {}", rows, length, to_string(dtype),
                                                   centers ? ", centered" : "", offset ? ", offset" : "", static_cast<int>(way)));
              ++cases;
            }
    check(cases > (is_slow() ? 75 : 150), "most cases fit into one launch");
    if (control.rank() == 0) std::cout << cases << " cases\n";
  });
}

TEST_F(PeerNorm, NaNAndInfinities) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    int cases = 0;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const double special : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)})
        for (const bool centers : {false, true})
          for (const Way way : {Way::chosen, Way::at_once, Way::by_parts}) {
            NormRun run(
                rank, {.dtype = dtype, .rows = 5, .length = 1024, .centers = centers, .offset = true, .way = way, .special = special}, 77);
            if (!run.fits()) continue;
            run.run();
            ++cases;
          }
    check(cases >= 36, "most cases fit into one launch");
  });
}

// What takes several steps of a block, and what takes several launches.
TEST_F(PeerNorm, ManyRows) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    std::uint64_t seed = 9000;
    using Extents = std::pair<std::int64_t, std::int64_t>;
    const std::vector<Extents> all = {{1031, 4096}, {20'011, 96}, {4099, 2048}}, of_fewer_blocks = {{517, 4096}, {5003, 96}};
    for (const auto& [rows, length] : is_slow() ? of_fewer_blocks : all)
      for (const Way way : {Way::chosen, Way::at_once, Way::by_parts}) {
        NormRun run(rank, {DType::bf16, rows, length, false, false, way}, seed += 10);
        if (run.fits()) run.run();
      }
  });
}

TEST_F(PeerNorm, RowsThatItDoesNotTake) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    const PeerGroup& group = rank.peers();
    check(group.can_reduce_and_norm(DType::bf16, 8192) && group.can_reduce_and_norm(DType::f32, 4), "whole words");
    check(!group.can_reduce_and_norm(DType::bf16, 8200) && !group.can_reduce_and_norm(DType::f32, 6) &&
              !group.can_reduce_and_norm(DType::f64, 8),
          "no whole words");
  });
}

}  // namespace
}  // namespace tandem::test
