/** One task: the `[tcp]` table: whether TCP asks a peer that is silent if it is still there, and when. */
import { z } from 'zod';

export interface TcpConfig {
  /** silence after which it is asked; null = never */
  readonly keepAliveMs: number | null;
}

/** Linux counts in seconds, up to this (include/net/tcp.h, MAX_TCP_KEEPIDLE). */
const TIME_MAX_MS = 32_767_000;
const SECOND_MS = 1_000;

/** The operating system's two hours are too long for whoever waits for what a vanished client holds. */
export const KEEP_ALIVE_MS = 60_000;

/** `keepalives` is an older name of `keepalive`. */
export const TCP = {
  keepalive: z.boolean().optional(),
  keepalives: z.boolean().optional(),
  time: z.int().min(1).max(TIME_MAX_MS).optional(),
};

/** Node sets neither of these; libuv asks ten times, a second apart (src/unix/tcp.c, uv__tcp_keepalive). */
export const TCP_IGNORED = ['interval', 'retries', 'user_timeout', 'congestion_control'] as const;

type TcpKeys = z.infer<z.ZodObject<typeof TCP>>;

export function tcpConfig({ keepalive, keepalives, time }: TcpKeys): TcpConfig {
  const on = keepalive ?? keepalives ?? true;
  return { keepAliveMs: on ? Math.ceil((time ?? KEEP_ALIVE_MS) / SECOND_MS) * SECOND_MS : null };
}

/** The same as options of Node's sockets and listeners. */
export function keepAliveOptions(keepAliveMs: number | null): { keepAlive: boolean; keepAliveInitialDelay: number } {
  return { keepAlive: keepAliveMs !== null, keepAliveInitialDelay: keepAliveMs ?? 0 };
}
