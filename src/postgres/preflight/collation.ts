/** One task: the checks on encoding, locale and collation versions: whether both sides sort and compare alike. */
import { bothSides, combined, listed, ok, failed, rowOf, rowsOf, versionOf, warning } from './check.js';
import type { Finding, PreflightCheck, PreflightSide } from './check.js';

interface Locale {
  readonly encoding: string;
  readonly provider: string;
  readonly collate: string;
  readonly ctype: string;
  /** of the ICU or builtin provider */
  readonly locale: string;
}

const COLLATION_VERSIONS_SINCE = 150_000;

/** to_jsonb because the columns differ: 14 has no provider, 15 and 16 daticulocale, 17 datlocale. */
async function localeOf(side: PreflightSide): Promise<Locale> {
  const { row } = await rowOf<{ row: Readonly<Record<string, string | null>> }>(
    side,
    `SELECT to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(d.encoding)) AS row
     FROM pg_database d WHERE datname = current_database()`,
  );
  return {
    encoding: row.encoding ?? '',
    provider: { c: 'libc', i: 'icu', b: 'builtin' }[row.datlocprovider ?? 'c'] ?? '',
    collate: row.datcollate ?? '',
    ctype: row.datctype ?? '',
    locale: row.datlocale ?? row.daticulocale ?? '',
  };
}

export const encoding: PreflightCheck = {
  id: 'encoding',
  title: 'Encoding',
  async run({ source, destination }) {
    const from = (await localeOf(source)).encoding;
    const to = (await localeOf(destination)).encoding;
    if (from === to) return ok(`${from} on both sides.`);
    const detail = `The source is in ${from}, the destination in ${to}.`;
    return to === 'UTF8' && from !== 'SQL_ASCII'
      ? warning(detail, 'Text is converted on the way, and on the way back only where the source can hold it.')
      : failed(detail, `Create the destination database with ENCODING '${from}' TEMPLATE template0.`);
  },
};

export const locale: PreflightCheck = {
  id: 'locale',
  title: 'Locale',
  async run({ source, destination }) {
    const from = localeText(await localeOf(source));
    const to = localeText(await localeOf(destination));
    if (from === to) return ok(`${from} on both sides.`);
    return warning(
      `The source uses ${from}, the destination ${to}: text may be sorted and compared in another way.`,
      'Create the destination database with the same locale (CREATE DATABASE … LOCALE_PROVIDER, LOCALE), unless you want the change.',
    );
  },
};

function localeText(locale: Locale): string {
  if (locale.provider === 'libc') return `libc ${locale.collate}/${locale.ctype}`;
  return `${locale.provider} ${locale.locale} (${locale.collate}/${locale.ctype})`;
}

export const collationVersions: PreflightCheck = {
  id: 'collation-versions',
  title: 'Collation versions',
  async run(context) {
    const findings: Finding[] = [];
    for (const side of bothSides(context)) {
      const outdated = await outdatedCollations(side);
      if (outdated.length === 0) continue;
      findings.push(
        warning(
          `On the ${side.role} the library that sorts has changed since these were made: ${listed(outdated)}.`,
          'Rebuild the indexes that use them (REINDEX), then ALTER DATABASE or COLLATION … REFRESH VERSION.',
        ),
      );
    }
    return findings.length > 0 ? combined(findings) : ok('As recorded, on both sides.');
  },
};

/** PostgreSQL documentation, 23.2.2.4 and ALTER DATABASE, REFRESH COLLATION VERSION. */
async function outdatedCollations(side: PreflightSide): Promise<readonly string[]> {
  const collations = await rowsOf<{ name: string }>(
    side,
    `SELECT format('%I.%I', n.nspname, c.collname) AS name
     FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
     WHERE c.collversion <> pg_collation_actual_version(c.oid) AND c.oid IN (SELECT attcollation FROM pg_attribute)
     ORDER BY 1`,
  );
  const names = collations.map((row) => `collation ${row.name}`);
  if ((await versionOf(side)) < COLLATION_VERSIONS_SINCE) return names;
  const { changed } = await rowOf<{ changed: boolean }>(
    side,
    `SELECT coalesce(datcollversion <> pg_database_collation_actual_version(oid), false) AS changed
     FROM pg_database WHERE datname = current_database()`,
  );
  return changed ? ['the database', ...names] : names;
}
