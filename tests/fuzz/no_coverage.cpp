// For programs that link code compiled with -fsanitize-coverage=trace-pc and do not want to know.
extern "C" void __sanitizer_cov_trace_pc() {}
