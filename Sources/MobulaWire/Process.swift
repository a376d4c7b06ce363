internal import Glibc

/// This process's id.
public func currentProcess() -> Int32 { getpid() }
