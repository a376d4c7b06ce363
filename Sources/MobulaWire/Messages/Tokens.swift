package import MobulaCore

/// The tokens that a cluster's heads and hosts are to have, the newest first, sealed for the connection that they come on.
package struct TokenNews: Codable, Sendable {
  package var sealed: ByteString

  package init(sealed: ByteString) { self.sealed = sealed }
}

/// Who has taken them.
package struct TokenReply: Codable, Sendable {
  /// Hosts that have them now, by name.
  package var taken: [String]
  /// Hosts that have not, and why.
  package var failed: [Name: String]

  package init(taken: [String], failed: [Name: String]) {
    self.taken = taken
    self.failed = failed
  }
}

package struct JobTokenRequest: Codable, Sendable {
  package var job: JobID

  package init(job: JobID) { self.job = job }
}

package struct JobTokenReply: Codable, Sendable {
  /// The text of the token, sealed.
  package var sealed: ByteString

  package init(sealed: ByteString) { self.sealed = sealed }
}

extension RPCRouter {
  /// Takes the cluster's tokens from the head, into the file that this process has its own from.
  package mutating func takeTokens(_ token: ClusterToken) {
    on(HostControlAPI.rotateToken) { news, connection in
      try token.replace(with: connection.open(news.sealed))
      return Empty()
    }
  }

  /// Gives jobs their tokens, and all hosts of the cluster its own.
  ///
  /// - Parameters:
  ///   - hosts: the connections of those that are there.
  ///   - mayHave: throws when the peer has nothing to do with the job.
  package mutating func giveTokens(
    hosts: @escaping @Sendable () -> [RPCConnection],
    mayHave: @escaping @Sendable (JobID, RPCConnection) throws -> Void
  ) {
    on(HeadAPI.jobToken) { request, connection in
      try mayHave(request.job, connection)
      return JobTokenReply(sealed: connection.seal(try connection.token.ofJob(request.job).text))
    }
    on(HeadAPI.rotateToken) { news, connection in
      let text = try connection.open(news.sealed)
      try connection.token.replace(with: text)
      var reply = TokenReply(taken: [], failed: [:])
      await withTaskGroup(of: (String, MobulaError?).self) { group in
        for host in hosts() { group.addTask { (host.peer.name, await host.give(text)) } }
        for await (name, error) in group {
          if let error { reply.failed[Name(name)] = error.message } else { reply.taken.append(name) }
        }
      }
      reply.taken.sort()
      return reply
    }
  }
}

extension RPCConnection {
  /// Has the host at the other end use the tokens that this process has, if it has shown an older one.
  package func renewToken() async {
    guard hasOldToken, authority?.role == nil else { return }
    _ = await give(token.text)
  }

  fileprivate func give(_ text: String) async -> MobulaError? {
    guard wireVersion >= Handshake.versionWithClaims else {
      return MobulaError(.mismatch, "it is of a build that takes no token while it runs: copy the file there.")
    }
    do {
      _ = try await call(HostControlAPI.rotateToken, TokenNews(sealed: seal(text)), deadline: .seconds(10))
      return nil
    } catch {
      return error as? MobulaError ?? MobulaError(.unavailable, "\(error)")
    }
  }
}
