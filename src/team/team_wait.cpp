// How a team waits for its ranks, and what it says when one does not come back.
#include <algorithm>

#include "core/check.h"
#include "team/team.h"

namespace tandem {
namespace {

constexpr std::chrono::nanoseconds kSlice = std::chrono::milliseconds(20);
constexpr std::chrono::nanoseconds kGiveUp = std::chrono::milliseconds(250);  // what ranks that were told to give up may take
constexpr std::chrono::nanoseconds kGrace = std::chrono::seconds(2);  // what ranks get to say what they were doing when another died

std::string label(const Step& step) { return fmt::format("[{} \"{}\"]", step.op, step.node); }

// An error that tells of another rank.
bool is_echo(const RankReply& reply, int rank) { return reply.error && reply.error->rank() >= 0 && reply.error->rank() != rank; }

}  // namespace

// Takes what has arrived; true if all have answered.
bool Team::receive_some(Replies& replies) {
  bool all = true;
  for (std::size_t r = 0; r < links_.size(); ++r) {
    if (!replies[r]) replies[r] = links_[r]->receive(all ? kSlice : std::chrono::nanoseconds(0));
    all = all && replies[r];
    // No peer is to wait for a rank that has failed.
    if (replies[r] && replies[r]->error && !is_echo(*replies[r], static_cast<int>(r)))
      region_->abort(ErrorCode::rank_failed, static_cast<int>(r), replies[r]->error->message());
  }
  return all;
}

// Ranks that have made no progress since the deadline; one that waits for another is late only if all are.
std::vector<int> Team::late_ranks(const Replies& replies, Deadline start, bool counted_from_progress) const {
  std::vector<int> late, waiting;
  std::size_t silent = 0;
  for (int rank = 0; rank < size(); ++rank) {
    if (replies[static_cast<std::size_t>(rank)]) continue;
    ++silent;
    const Progress progress = region_->progress(rank);
    if (!(counted_from_progress ? start.counted_from(progress.marked_at_ns) : start).expired()) continue;
    const bool waits = progress.waiting_for >= 0 || (!counted_from_progress && progress.attached);
    (waits ? waiting : late).push_back(rank);
  }
  return late.empty() && waiting.size() == silent ? waiting : late;
}

void Team::tell_progress(const Replies& replies) const {
  double sum = 0;
  for (int rank = 0; rank < size(); ++rank) sum += replies[static_cast<std::size_t>(rank)] ? 1 : region_->page(rank).loaded.load();
  settings_.progress(sum / size());
}

std::vector<RankReply> Team::wait_for_all(std::chrono::nanoseconds limit, bool counted_from_progress) {
  const Deadline start = Deadline::after(limit);
  std::optional<Deadline> grace, drain;
  bool given_up = false;
  Replies replies(links_.size());
  while (!receive_some(replies)) {
    if (settings_.progress) tell_progress(replies);
    const std::vector<int> late = late_ranks(replies, start, counted_from_progress);
    const bool dead = std::ranges::any_of(replies, [](const auto& r) { return r && r->ended; });
    // Whom the others miss will not answer either.
    const bool missed = std::ranges::any_of(replies, [&](const auto& r) {
      return r && r->error && r->error->code() == ErrorCode::timeout && r->error->rank() >= 0 &&
             !replies[static_cast<std::size_t>(r->error->rank())];
    });
    if ((dead || missed || !late.empty()) && !grace) {
      grace = Deadline::after(kGrace);
      const Failure failure = judge(replies, late, limit);
      region_->abort(failure.error.code(), failure.error.rank(), failure.error.message());
    }
    if (settings_.stop && !drain && settings_.stop()) drain = Deadline::after(settings_.stop_deadline);
    if (drain && drain->expired()) {
      if (given_up) end_for_good(Error(ErrorCode::interrupted, "interrupted; the ranks did not finish their step in time and were ended"));
      given_up = true;
      drain = Deadline::after(kGiveUp);
      region_->abort(ErrorCode::aborted, -1, "the caller interrupted the step");
    }
    if (grace && grace->expired()) fail_all(replies, late, limit);
  }
  if (given_up) {
    regroup_ = true;
    throw Error(ErrorCode::interrupted, "interrupted");
  }
  if (std::ranges::any_of(replies, [](const auto& r) { return r->error.has_value(); })) fail_all(replies, {}, limit);
  if (drain || (settings_.stop && settings_.stop())) throw Error(ErrorCode::interrupted, "interrupted");
  std::vector<RankReply> out;
  for (auto& reply : replies) out.push_back(std::move(*reply));
  return out;
}

// What a rank did last, and where others wait for it: "; it had completed 3 of 12 steps, the next is [MatMul "b"]; rank 0 waited in …".
std::string Team::whereabouts(int rank, const Replies& replies) const {
  const auto& steps = program(rank).steps;
  const Progress progress = region_->progress(rank);
  const auto done = static_cast<std::size_t>(progress.step + 1);
  std::string text;
  if (!running_) text = progress.marked_at_ns == 0 ? "; it had not joined the others" : "";
  else if (done >= steps.size()) text = "; it had completed all its steps";
  else text = fmt::format("; it had completed {} of {} steps, the next is {}", done, steps.size(), label(steps[done]));
  for (int other = 0; other < size(); ++other) {
    const auto& reply = replies[static_cast<std::size_t>(other)];
    if (other == rank || !reply || !is_echo(*reply, other) || reply->error->node().empty()) continue;
    text += fmt::format("; rank {} waited in [{}]", other, reply->error->node());
  }
  return text;
}

Team::Failure Team::judge(const Replies& replies, const std::vector<int>& late, std::chrono::nanoseconds limit) const {
  const auto seconds = std::chrono::duration<double>(limit).count();
  const auto stuck = [&](int rank) {
    return Failure{Error(ErrorCode::timeout, fmt::format("no progress for {:.1f} s{}", seconds, whereabouts(rank, replies)), {}, rank),
                   true};
  };
  for (int rank = 0; rank < size(); ++rank)
    if (const auto& reply = replies[static_cast<std::size_t>(rank)]; reply && reply->ended)
      return {Error(ErrorCode::rank_failed, reply->error->message() + whereabouts(rank, replies), {}, rank), true};
  for (const auto& reply : replies)
    if (reply && reply->error && reply->error->rank() >= 0 && !replies[static_cast<std::size_t>(reply->error->rank())])
      return stuck(reply->error->rank());
  for (int rank = 0; rank < size(); ++rank)
    if (const auto& reply = replies[static_cast<std::size_t>(rank)]; reply && reply->error && !is_echo(*reply, rank))
      return {*reply->error, !late.empty()};
  if (!late.empty()) return stuck(late[0]);
  for (const auto& reply : replies)
    if (reply && reply->error) return {*reply->error, false};
  check(false, "a failure has a cause");
  return {Error(ErrorCode::internal, ""), true};
}

void Team::fail_all(Replies& replies, const std::vector<int>& late, std::chrono::nanoseconds limit) {
  Failure failure = judge(replies, late, limit);
  failure.fatal = failure.fatal || std::ranges::any_of(replies, [](const auto& r) { return !r; });
  if (failure.fatal) end_for_good(failure.error);
  regroup_ = true;
  throw failure.error;
}

void Team::end_for_good(const Error& error) {
  broken_ = error;
  region_->abort(error.code(), error.rank(), error.what());
  if (spawner_)
    for (auto& link : links_) link->close(Deadline::after(std::chrono::seconds(0)));
  throw error;
}

}  // namespace tandem
