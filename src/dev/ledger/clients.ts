/** One task: run the clients of an application side by side until they are told to end. */
import type { Book } from './book.js';
import type { Client } from './client.js';

export interface RunningClients {
  /** Lets every client finish its turn and disconnects, then closes the book; who is still held after 10 s is cut off. May be called again. */
  stop(): Promise<void>;
}

const STOP_GRACE_MS = 10_000;

/**
 * Connects all of them, then sets them to work. `end` is called once they are to end; the book is closed when they have.
 *
 * @throws Error when a client cannot log in
 */
export async function runClients(clients: readonly Client[], book: Book, end: () => void): Promise<RunningClients> {
  await connectAll(clients);
  const running = Promise.all(clients.map((client) => client.run()));
  const stop = async (): Promise<void> => {
    end();
    await endOf(running, clients);
    book.close();
  };
  return { stop };
}

async function connectAll(clients: readonly Client[]): Promise<void> {
  try {
    await Promise.all(clients.map((client) => client.connect()));
  } catch (error) {
    for (const client of clients) client.destroy();
    throw error;
  }
}

async function endOf(running: Promise<unknown>, clients: readonly Client[]): Promise<void> {
  const timer = setTimeout(() => {
    for (const client of clients) client.destroy();
  }, STOP_GRACE_MS);
  await running;
  clearTimeout(timer);
}
