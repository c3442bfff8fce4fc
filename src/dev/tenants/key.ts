/** One task: say by what the tenants of a shop are told apart: numbers, texts or uuids. */
import { createHash } from 'node:crypto';

export interface TenantKey {
  /** of the column */
  readonly type: string;
  /** of a generated column that is made of the key */
  readonly doubled: string;
  /** the key of the tenant with this number, as a text */
  readonly of: (tenant: number) => string;
  /** the same in SQL, of an expression of type integer */
  readonly sql: (tenant: string) => string;
}

const BY_TEXT = 'text GENERATED ALWAYS AS (tenant_id::text || tenant_id::text)';
/** More than one byte to a character, a space, and an order that is not that of the numbers. */
const NAME = 'Zürich ';

export const TENANT_KEYS: Readonly<Record<'bigint' | 'varchar' | 'uuid', TenantKey>> = {
  bigint: {
    type: 'bigint',
    doubled: 'bigint GENERATED ALWAYS AS (tenant_id * 2)',
    of: (tenant) => tenant.toString(),
    sql: (tenant) => tenant,
  },
  varchar: {
    type: 'varchar(80)',
    doubled: BY_TEXT,
    of: (tenant) => `${NAME}${tenant.toString()}`,
    sql: (tenant) => `'${NAME}' || (${tenant})`,
  },
  uuid: {
    type: 'uuid',
    doubled: BY_TEXT,
    of: (tenant) => uuidOf(createHash('md5').update(tenant.toString()).digest('hex')),
    sql: (tenant) => `md5((${tenant})::text)::uuid`,
  },
};

function uuidOf(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
