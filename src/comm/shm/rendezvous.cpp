#include "comm/shm/rendezvous.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "comm/shm/meeting_socket.h"
#include "core/check.h"
#include "core/stop.h"

namespace tandem::shm {
namespace {

constexpr std::uint64_t kHelloMagic = 0x6f6c6c6568646e74;  // "tndhello"
constexpr std::uint32_t kVersion = 1;                      // of what is said here and of what lies in the common memory
constexpr std::chrono::nanoseconds kSlice = std::chrono::milliseconds(20), kHandOut = std::chrono::seconds(2);

std::string seconds_of(std::chrono::nanoseconds time) { return fmt::format("{:g} s", static_cast<double>(time.count()) * 1e-9); }

void throw_if_stopped(const Meeting& meeting) {
  if (StopScope::set() ? StopScope::wanted() : meeting.waiting.stop && meeting.waiting.stop())
    throw Error(ErrorCode::interrupted, fmt::format("interrupted while the ranks met at {}", meeting.place), {}, meeting.rank);
}

// "rank 3 of 4", "ranks 2, 3 of 4".
std::string ranks_of(const std::vector<int>& ranks, int size) {
  return fmt::format("rank{} {} of {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "), size);
}

[[noreturn]] void throw_missing(const Meeting& meeting, int first, const std::string& ranks, std::chrono::nanoseconds waited,
                                const std::string& more = {}) {
  throw Error(ErrorCode::timeout, fmt::format("{} did not come to {} in {}{}", ranks, meeting.place, seconds_of(waited), more), {}, first);
}

// The hand-out is quick, but must not fail because the last rank came in the last moment.
Deadline hand_out_deadline(Deadline deadline) {
  return Deadline::after(std::max<std::chrono::nanoseconds>(deadline.remaining(), kHandOut));
}

// Rank 0.
class Host {
 public:
  Host(const Meeting& meeting, Deadline deadline) : meeting_(meeting), deadline_(deadline) {}

  std::unique_ptr<Group> meet() {
    try {
      if (meeting_.size > 1) listen();
      while (!missing().empty()) look_around();
      return hand_out();
    } catch (const Error& error) {
      const bool own = error.code() == ErrorCode::interrupted;
      tell_all(Answer::Word::refused, own ? ErrorCode::aborted : error.code(), error.rank(), error.message());
      throw;
    }
  }

 private:
  struct Visitor {
    MeetingSocket socket;
    int rank = -1;  // until it has said so
  };

  void listen() {
    while (!(listener_ = MeetingSocket::listen(meeting_.name))) {
      throw_if_stopped(meeting_);
      if (deadline_.expired()) {
        const MeetingSocket other = MeetingSocket::connect(meeting_.name);
        fail(ErrorCode::timeout, "rank 0 cannot wait for the others at {}: {} has waited there for {}; give each run a port of its own",
             meeting_.place, other ? fmt::format("process {}", other.peer().process) : "another process", seconds_of(deadline_.limit()));
      }
      std::this_thread::sleep_for(kSlice);
    }
  }

  std::vector<int> missing() const {
    std::vector<int> ranks;
    for (int rank = 1; rank < meeting_.size; ++rank)
      if (std::ranges::find(visitors_, rank, &Visitor::rank) == visitors_.end()) ranks.push_back(rank);
    return ranks;
  }

  void tell_all(Answer::Word word, ErrorCode code, int rank, std::string_view text) {
    Answer answer{word, static_cast<std::int32_t>(code), rank, {}};
    text.copy(answer.text, sizeof answer.text - 1);
    for (const Visitor& visitor : visitors_) visitor.socket.send(answer);
  }

  // One turn: who comes, who speaks, who is gone.
  void look_around() {
    throw_if_stopped(meeting_);
    const std::vector<int> before = missing();
    if (deadline_.expired()) throw_missing(meeting_, before.front(), ranks_of(before, meeting_.size), deadline_.limit());
    std::vector<pollfd> all = {{listener_.fd(), POLLIN, 0}};
    for (const Visitor& visitor : visitors_) all.push_back({visitor.socket.fd(), POLLIN, 0});
    ::poll(all.data(), all.size(), static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(kSlice).count()));
    while (MeetingSocket socket = listener_.accept())
      if (socket.peer().user == ::getuid()) visitors_.push_back({std::move(socket)});
    for (std::size_t i = 0; i < visitors_.size(); ++i)
      if (const auto hello = visitors_[i].socket.receive<Hello>()) hear(i, *hello);
    std::erase_if(visitors_, [](const Visitor& visitor) { return visitor.socket.ended(); });
    if (const std::vector<int> now = missing(); now != before && !now.empty())
      tell_all(Answer::Word::waiting, ErrorCode::timeout, now.front(), ranks_of(now, meeting_.size));
  }

  void hear(std::size_t index, const Hello& hello) {
    Visitor& visitor = visitors_[index];
    const pid_t process = visitor.socket.peer().process;
    if (hello.magic != kHelloMagic) {
      visitors_.erase(visitors_.begin() + static_cast<std::ptrdiff_t>(index));  // a stranger
      return;
    }
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorCode::mismatch, fmt::format("{} ({})", why, meeting_.place), {}, hello.rank);
    };
    if (hello.version != kVersion)
      refuse(fmt::format("process {} is of another version of Tandem: it says {}, rank 0 says {}", process, hello.version, kVersion));
    if (hello.size != meeting_.size)
      refuse(fmt::format("rank {} (process {}) says that there are {} ranks, rank 0 (process {}) says {}", hello.rank, process, hello.size,
                         ::getpid(), meeting_.size));
    if (hello.word == Hello::Word::waited_enough) {
      const std::vector<int> ranks = missing();
      throw_missing(meeting_, ranks.front(), ranks_of(ranks, meeting_.size), std::chrono::nanoseconds(hello.waited_ns));
    }
    if (hello.word == Hello::Word::interrupted)
      throw Error(ErrorCode::aborted, fmt::format("its caller interrupted it while the ranks met at {}", meeting_.place), {}, hello.rank);
    if (const auto other = std::ranges::find(visitors_, hello.rank, &Visitor::rank); other != visitors_.end())
      refuse(fmt::format("two processes say that they are rank {}: {} and {}", hello.rank, other->socket.peer().process, process));
    visitor.rank = hello.rank;
  }

  std::unique_ptr<Group> hand_out() {
    listener_ = MeetingSocket();  // the same ranks may meet here again
    const auto region = ShmRegion::create(meeting_.size);
    region->enter(0);
    const auto ended = [&](const Visitor& visitor) {
      region->abort(ErrorCode::rank_failed, visitor.rank,
                    fmt::format("its process {} ended while the ranks met", visitor.socket.peer().process));
    };
    std::erase_if(visitors_, [](const Visitor& visitor) { return visitor.rank < 0; });
    for (const Visitor& visitor : visitors_)
      if (!visitor.socket.send(Answer{.word = Answer::Word::welcome}, region->fd())) ended(visitor);
    return region->wait_for_all(0, hand_out_deadline(deadline_), meeting_.waiting, [&] {
      for (Visitor& visitor : visitors_) {
        visitor.socket.receive<Hello>();
        const RankState state = region->page(visitor.rank).state;
        if (visitor.socket.ended() && (state == RankState::absent || state == RankState::joining)) ended(visitor);
      }
    });
  }

  const Meeting& meeting_;
  Deadline deadline_;
  MeetingSocket listener_;
  std::vector<Visitor> visitors_;
};

// Any other rank.
class Guest {
 public:
  Guest(const Meeting& meeting, Deadline deadline) : meeting_(meeting), deadline_(deadline) {}

  std::unique_ptr<Group> meet() {
    for (;; std::this_thread::sleep_for(kSlice / 2)) {
      throw_if_stopped(meeting_);
      if (deadline_.expired()) throw_missing(meeting_, 0, ranks_of({0}, meeting_.size), deadline_.limit());
      MeetingSocket socket = MeetingSocket::connect(meeting_.name);
      if (!socket) continue;
      if (const PeerProcess peer = socket.peer(); peer.user != ::getuid())
        fail(ErrorCode::io, "process {} of user {} is at {}, where rank 0 should be", peer.process, peer.user, meeting_.place);
      if (!socket.send(hello(Hello::Word::comes))) continue;
      if (auto group = hear(socket)) return group;
    }
  }

 private:
  // Null if the one that listened was about to leave: rank 0 may come again.
  std::unique_ptr<Group> hear(MeetingSocket& socket) {
    std::optional<Answer> last;
    for (;;) {
      try {
        throw_if_stopped(meeting_);
      } catch (const Error&) {
        socket.send(hello(Hello::Word::interrupted));
        throw;
      }
      tandem::Descriptor memory;
      if (const auto answer = socket.receive<Answer>(&memory)) {
        if (answer->word == Answer::Word::refused) throw Error(static_cast<ErrorCode>(answer->code), answer->text, {}, answer->rank);
        if (answer->word == Answer::Word::welcome) return enter(memory);
        last = answer;
        continue;
      }
      const pid_t process = socket.peer().process;
      if (socket.ended() && !last) return nullptr;
      if (socket.ended())
        throw Error(ErrorCode::rank_failed, fmt::format("its process {} ended while the ranks met at {}", process, meeting_.place), {}, 0);
      if (deadline_.expired() && last) {
        socket.send(hello(Hello::Word::waited_enough));
        throw_missing(meeting_, last->rank, last->text, deadline_.limit());
      }
      if (deadline_.expired())
        throw_missing(meeting_, 0, ranks_of({0}, meeting_.size), deadline_.limit(),
                      fmt::format("; process {} is there and does not answer", process));
      pollfd poller = {socket.fd(), POLLIN, 0};
      ::poll(&poller, 1, static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(kSlice).count()));
    }
  }

  Hello hello(Hello::Word word) const { return {kHelloMagic, kVersion, meeting_.rank, meeting_.size, word, deadline_.limit().count()}; }

  std::unique_ptr<Group> enter(const tandem::Descriptor& memory) {
    const auto region = ShmRegion::open(memory.get());
    check(region->world() == meeting_.size, "rank 0 makes memory for all ranks");
    region->enter(meeting_.rank);
    return region->wait_for_all(meeting_.rank, hand_out_deadline(deadline_), meeting_.waiting, {});
  }

  const Meeting& meeting_;
  Deadline deadline_;
};

}  // namespace

std::unique_ptr<Group> meet(const Meeting& meeting) {
  const Deadline deadline = Deadline::after(meeting.waiting.rendezvous);
  return meeting.rank == 0 ? Host(meeting, deadline).meet() : Guest(meeting, deadline).meet();
}

}  // namespace tandem::shm
