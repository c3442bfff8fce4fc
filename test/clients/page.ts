/** One task: the table of docs/clients.md: a row for each driver, made from what its program told. */
import type { Driver } from './drivers.js';
import type { Outcome } from './program.js';

/** By the name that the programs give it, the heading of its column. */
export const COLUMNS: Readonly<Record<string, string>> = {
  connect: 'SCRAM',
  tls: 'TLS',
  prepared: 'prepared',
  transactions: 'transactions',
  copy: 'COPY',
  notify: 'NOTIFY',
  cancel: 'cancel',
  types: 'types',
  arrays: 'arrays',
  errors: 'errors',
  pool: 'pool',
  cutover: 'cutover',
};

export function heading(): string {
  return rowOf(['client', 'version', ...Object.values(COLUMNS)]);
}

/** The row of a driver, from what its program told of the proxy. */
export function row({ title, version }: Driver, outcomes: readonly Outcome[]): string {
  const cells = Object.keys(COLUMNS).map((column) => {
    const outcome = outcomes.find(({ via, feature }) => via === 'proxy' && feature === column);
    return outcome === undefined ? 'not tried' : cell(outcome.ok);
  });
  return rowOf([title, version, ...cells]);
}

function cell(ok: boolean | null): string {
  if (ok === null) return '–';
  return ok ? 'yes' : '**no**';
}

function rowOf(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}
