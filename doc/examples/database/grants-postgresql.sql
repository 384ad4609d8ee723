-- in the database vmip, before the first "vmip-manage db upgrade"
-- for "vmip-manage db upgrade" only
CREATE ROLE vmip_schema LOGIN PASSWORD 'SCHEMA_PASSWORD';
ALTER DATABASE vmip OWNER TO vmip_schema;
-- for everything else
CREATE ROLE vmip_run LOGIN PASSWORD 'RUN_PASSWORD';
ALTER DEFAULT PRIVILEGES FOR ROLE vmip_schema
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO vmip_run;
ALTER DEFAULT PRIVILEGES FOR ROLE vmip_schema
    GRANT USAGE ON SEQUENCES TO vmip_run;
