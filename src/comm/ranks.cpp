#include "comm/ranks.h"

#include <exception>
#include <mutex>
#include <optional>
#include <thread>

namespace tandem {
namespace {

// The failure to report: the first one that no other rank caused.
class FirstFailure {
 public:
  void record(const Error& error) {
    const std::lock_guard lock(mutex_);
    const bool follows = error.code() == ErrorCode::aborted || error.code() == ErrorCode::rank_failed;
    if (error_ && (follows || !follows_)) return;
    error_ = error;
    follows_ = follows;
  }
  void throw_if_any() const {
    if (error_) throw Error(*error_);
  }

 private:
  std::mutex mutex_;
  std::optional<Error> error_;
  bool follows_ = false;
};

void run_rank(ShmRegion& region, int rank, const std::function<void(Group&)>& body, FirstFailure& failure) {
  const auto failed = [&](const Error& error) {
    failure.record(error);
    region.mark_failed(rank, error.message());
  };
  try {
    // The group outlives the handlers' work below, so that peers hear the reason before they see this rank leave.
    const std::unique_ptr<Group> group = region.attach(rank);
    try {
      body(*group);
    } catch (const Error& error) {
      failed(error.at_rank(rank));
    } catch (const std::exception& error) {
      failed(Error(ErrorCode::rank_failed, error.what(), {}, rank));
    }
  } catch (const Error& error) {
    failed(error.at_rank(rank));
  }
}

}  // namespace

void run_ranks(int world, const std::function<void(Group&)>& body, const ShmOptions& options) {
  const std::shared_ptr<ShmRegion> region = ShmRegion::create(world, options);
  FirstFailure failure;
  {
    std::vector<std::jthread> threads;
    for (int r = 0; r < world; ++r) threads.emplace_back([&, r] { run_rank(*region, r, body, failure); });
  }
  failure.throw_if_any();
}

}  // namespace tandem
