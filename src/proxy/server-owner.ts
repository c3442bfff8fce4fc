/** One task: say what a server connection tells whoever uses it. */

/** Who uses a server connection at the moment. */
export interface ServerOwner {
  readonly id: number;
  /** Bytes for the client, which stay as they are. */
  deliver(bytes: Buffer): void;
  /**
   * The same of bytes that are overwritten once it has returned; absent: it gets copies.
   *
   * @returns false: it is not done with them, and they stay as they are
   */
  relay?(bytes: Buffer): boolean;
  /** A setup statement was answered; `failure` is its ErrorResponse. */
  setupDone(failure: Buffer | null): void;
  /** ReadyForQuery with nothing left to answer: transactionStatus holds. */
  settled(): void;
  /** The fence refused the first statement of a batch, nothing of which was delivered; the server is idle again. */
  refused(reply: Buffer): void;
  /**
   * ReadyForQuery after commands that may have changed what the session is made of, or after an error.
   *
   * @param tags bits of SESSION_TAG seen since the last ReadyForQuery
   */
  sessionChanged(tags: number, failed: boolean): void;
  /** The name the client gave a statement that an error names, if it has one. */
  clientNameOf(serverName: string): string | undefined;
  /** The server can take bytes again after send() said no. */
  writable(): void;
  /** The connection ended while owned. */
  lost(): void;
}
