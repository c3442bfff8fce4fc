/** One task: run a pg_dump of the system, for who prefers it to the built-in one. */
import { execFile } from 'node:child_process';
import type { Endpoint } from '../endpoint.js';
import type { DumpLimits } from './builtin.js';

const PROBLEM_CHARACTERS_MAX = 2_000;

/**
 * Runs the program at `path` with `args` and returns what it wrote. Reads only; may be called again.
 *
 * The password travels in the environment, which only this user can read (PostgreSQL documentation, 32.15), never in the
 * arguments, which everybody can.
 *
 * @throws Error with pg_dump's own words, or why it could not run
 */
export function runSystemDump(
  path: string,
  endpoint: Endpoint,
  args: readonly string[],
  limits: DumpLimits,
): Promise<string> {
  const env: NodeJS.ProcessEnv = { PATH: process.env.PATH, LC_ALL: 'C' };
  if (endpoint.password !== undefined) env.PGPASSWORD = endpoint.password;
  Object.assign(env, tlsEnvironment(endpoint));
  const where = ['--host', endpoint.host, '--port', endpoint.port.toString(), '--username', endpoint.user];
  const options = { env, timeout: limits.deadlineMs, killSignal: 'SIGKILL', maxBuffer: limits.sizeBytesMax } as const;
  return new Promise((resolve, reject) => {
    execFile(
      path,
      [...args, ...where, '--no-password', '--dbname', endpoint.database],
      options,
      (error, stdout, stderr) => {
        if (!error) resolve(stdout);
        else reject(new Error(problemOf(error, stderr, limits), { cause: error }));
      },
    );
  });
}

/** `tls_verify` and its files by libpq's names (PostgreSQL documentation, 32.15). */
function tlsEnvironment({ tls }: Endpoint): NodeJS.ProcessEnv {
  if (tls === undefined || tls.verify === 'disabled') return { PGSSLMODE: 'disable' };
  const { verify, authority, pair } = tls;
  return {
    PGSSLMODE: verify.replace('_', '-'),
    // Without an authority of its own libpq would look into a file at home that is not there.
    ...(verify === 'prefer' ? {} : { PGSSLROOTCERT: authority?.path ?? 'system' }),
    ...(pair && { PGSSLCERT: pair.certificate.path, PGSSLKEY: pair.privateKey.path }),
  };
}

function problemOf(error: Error & { code?: unknown; killed?: boolean }, stderr: string, limits: DumpLimits): string {
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
    return `the dump has more than ${limits.sizeBytesMax.toString()} bytes`;
  if (error.killed === true) return `pg_dump did not end within ${limits.deadlineMs.toString()} ms`;
  // Node's own message repeats the whole command line.
  const words = stderr.trim().slice(-PROBLEM_CHARACTERS_MAX);
  return words === '' ? `pg_dump could not run (${String(error.code)})` : words;
}
