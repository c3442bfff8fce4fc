/** One task: one writer: make a write, and note what became of it. */
import { messageOf } from '../../errors/errors.js';
import { nowMs } from './book.js';
import { Client, type ClientContext } from './client.js';
import { mayHaveTakenEffect, type Session } from './session.js';
import type { Write } from './writes.js';

export function writer(context: ClientContext, writeOfTurn: (turn: number, writer: string) => Write): Client {
  const client: Client = new Client(context, async (session, turn) => {
    const write = writeOfTurn(turn, context.name);
    await perform(session, write, context, client);
  });
  return client;
}

async function perform(session: Session, write: Write, context: ClientContext, client: Client): Promise<void> {
  const { token, table, style, statements } = write;
  const last = statements.at(-1);
  let longestStatementMs = 0;
  for (const statement of statements) {
    const sentAtMs = nowMs();
    try {
      await session.send(statement, style);
    } catch (error) {
      await session.rollback();
      // Before the last statement nothing of the write can have been committed, however the connection ended.
      if (statement !== last || !mayHaveTakenEffect(error, session)) client.refuse(error, token);
      else context.book.unknown.push({ token, atMs: nowMs(), client: context.name, message: messageOf(error) });
      return;
    }
    longestStatementMs = Math.max(longestStatementMs, nowMs() - sentAtMs);
  }
  context.book.acknowledge({ token, table, atMs: nowMs(), client: context.name, longestStatementMs });
}
