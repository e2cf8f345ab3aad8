// A library to be found by library_test.cpp.
extern "C" int tandem_small_answer() { return 42; }
