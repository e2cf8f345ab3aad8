// The one exception type of Tandem. Public; belongs to core.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace tandem {

enum class ErrorCode {
  invalid_argument,  // wrong use of an API or a command
  invalid_model,     // the model (or a graph text) breaks its own rules
  unsupported,       // valid, but not something this build can do
  invalid_engine,    // engine file damaged, of another version, or not an engine
  mismatch,          // two sides that must agree do not: world size, device, fingerprint, weights
  io,                // file or system call failed
  out_of_memory,     // more memory asked for than there is
  timeout,           // a deadline passed
  rank_failed,       // another rank exited, was killed or reported an error
  aborted,           // the group or team was aborted before
  interrupted,       // a signal or the caller asked to stop
  internal,          // our bug: an invariant broke
};

// "invalid_argument", "timeout", …; the words that --json and Python use.
std::string_view to_string(ErrorCode code);

// what() is the whole sentence for people, like `[Softmax "layer3/attn"] axis 4 is outside rank 3`.
class Error : public std::runtime_error {
 public:
  explicit Error(ErrorCode code, const std::string& message, std::string node = {}, int rank = -1);

  ErrorCode code() const { return code_; }
  // What went wrong, without node and rank.
  const std::string& message() const { return message_; }
  // The node the error is about, as `Op "name"`; empty if it is about none.
  const std::string& node() const { return node_; }
  // The rank that failed or reported; -1 if it is about none.
  int rank() const { return rank_; }

  // The same error, saying where it happened; keeps a node or rank that is already named.
  Error at_node(const std::string& node) const;
  Error at_rank(int rank) const;

 private:
  ErrorCode code_;
  std::string message_;
  std::string node_;
  int rank_;
};

}  // namespace tandem
